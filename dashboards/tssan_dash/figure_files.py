"""What the pages write to files, and figures as the bytes of one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_file(
    keep: Callable[[str, Any], None],
    wish: Mapping[str, Any],
    files: Mapping[str, str],
    *,
    what: str,
    name: Callable[[str], str],
    key: Callable[[str], str],
    make: Callable[[str], Figure | str],
) -> dict[str, str]:
    """Keep the bytes of a file that a page was asked for.

    Parameters
    ----------
    keep
        Keeps them under a key.
    wish
        With the ``ending`` of the file.
    files
        By its ending what can be written.
    what
        What is written, as a sentence begins with it.
    name, key, make
        Of an ending: what the file is called, its key, and its content (a figure, or text).

    Returns
    -------
    dict
        The ``key`` under which the bytes lie, and the ``name`` of the file.

    Raises
    ------
    UserError
        Such a file is not written.
    """
    ending = wish["ending"]
    if ending not in files:
        raise UserError(f"{what} is saved as {', '.join(files)}, not as {ending!r}")
    made = make(ending)
    called = name(ending)
    data = made.encode() if isinstance(made, str) else figure_bytes(made, Path(called).suffix[1:])
    keep(key(ending), data)
    return {"key": key(ending), "name": called}


def figure_bytes(figure: Figure, ending: str) -> bytes:
    """Return a figure as a file of this ending (``pdf``, ``svg``, ``png``) would hold it."""
    from tssan_viz.figures import save_figure

    with tempfile.TemporaryDirectory() as folder:
        return save_figure(figure, Path(folder) / f"figure.{ending}").read_bytes()
