"""The queries and keys of a video's frames as a notebook widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tssan_viz.views.payload import query_key_payload
from tssan_viz.views.widget import SampleView

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tssan_viz.selection import Selection


class QueryKeyView(SampleView):
    """Queries and keys of one head in a plane, and what each dimension adds to their product."""


def query_key_view(
    selection: Selection,
    queries: ArrayLike | None = None,
    keys: ArrayLike | None = None,
    sample: str | None = None,
    **state: Any,
) -> QueryKeyView:
    """Show the queries and keys of one sample, head by head.

    Parameters
    ----------
    selection, queries, keys, sample
        As for `query_key_payload`.
    **state
        With what the view begins; see `tssan_viz.head_view`. Of the heads that are on, the first
        is shown.

    Returns
    -------
    QueryKeyView
        A widget whose state can be read and set; `save_html` keeps it as a page.

    Raises
    ------
    UserError
        As `query_key_payload`.
    """
    payload = query_key_payload(selection, queries, keys, sample)
    return QueryKeyView(payload, **{"heads": payload.manifest["heads"][:1], **state})
