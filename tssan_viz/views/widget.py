"""The views of a video as notebook widgets, whose state can be read and set from Python."""

from __future__ import annotations

import difflib
import html
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the notebook widget needs anywidget: pip install 'tssan-viz[notebook]' "
        "(tssan_viz.save_html writes the same view as a page without it)",
        name=error.name,
    ) from error

from tssan_viz.errors import UserError
from tssan_viz.views.html import page, write_page
from tssan_viz.views.payload import Payload, initial_state, module_path, sample_payload

if TYPE_CHECKING:
    from tssan_viz.selection import Selection

_FRAME_HEIGHT = 640


def refuse_unknown_state(
    given: Iterable[str], known: Collection[str], states: Sequence[str]
) -> None:
    """Raise UserError for a name that is not known; the message names the nearest state."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, states, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"a view has no state {name!r}; {hint}There are {', '.join(states)}")


class SampleView(anywidget.AnyWidget):
    """One sample's attention between frames, head by head, in any of the views of a video.

    What is chosen in the view is seen in the attributes, and what is set here is shown there. Where
    no widget manager listens (a saved notebook, nbconvert), the stand-alone page is shown instead.

    Attributes
    ----------
    layer : int
        The layer shown, from 1.
    heads : list of int
        The heads that are on, from 1.
    locked : dict or None
        ``{"side": "query" | "key", "frame": int}`` with the frame counted from 0, or None.
    segment, person : int
        Which segment and person, from 1.
    orientation : str
        ``"auto"`` (rows where the page is narrow), ``"horizontal"`` or ``"vertical"``.
    threshold : float
        Lines below this share of the strongest weight are not drawn, from 0 to 1.
    frame : int
        The frame that the player shows, counted from 0.
    step : int or None
        Which of the ``manifest["steps"]`` at which the sample was recorded; None where it was one.
    lit : str
        What the player lights: ``"frames"`` by attention, or ``"joints"`` by what the class's logit
        loses when one rests, where ``tssan-viz explain`` found that out. Where attention is between
        joints, they are lit by it.
    manifest : dict
        What the view knows of the sample; see `tssan_viz.views.payload.head_view_payload`.
    """

    _esm = module_path()
    _state_names = (
        "layer",
        "heads",
        "locked",
        "segment",
        "person",
        "orientation",
        "threshold",
        "frame",
        "step",
        "lit",
    )

    _buffer_names = ("maps", "poses", "earlier", "query_vectors", "key_vectors", "plane")

    manifest = traitlets.Dict(read_only=True).tag(sync=True)
    maps = traitlets.Bytes(read_only=True).tag(sync=True)
    poses = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    earlier = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    query_vectors = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    key_vectors = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    plane = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    layer = traitlets.Int(1).tag(sync=True)
    heads = traitlets.List(traitlets.Int()).tag(sync=True)
    locked = traitlets.Dict(None, allow_none=True).tag(sync=True)
    segment = traitlets.Int(1).tag(sync=True)
    person = traitlets.Int(1).tag(sync=True)
    orientation = traitlets.Enum(["auto", "horizontal", "vertical"], "auto").tag(sync=True)
    threshold = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    frame = traitlets.Int(0, min=0).tag(sync=True)
    step = traitlets.Int(None, allow_none=True).tag(sync=True)
    lit = traitlets.Enum(["frames", "joints"], "frames").tag(sync=True)

    def __init__(self, payload: Payload, **state: Any) -> None:
        refuse_unknown_state(state, self.trait_names(), self._state_names)
        manifest = payload.manifest
        self.set_trait("manifest", manifest)
        for name in self._buffer_names:
            self.set_trait(name, payload.buffers.get(name))
        super().__init__(**{**initial_state(manifest), **state})

    @traitlets.validate("layer", "segment", "person")
    def _known(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (there := self.manifest[f"{name}s"]):
            raise traitlets.TraitError(f"{name} is one of {there}, not {value}")
        return value

    @traitlets.validate("step")
    def _known_step(self, proposal: dict[str, Any]) -> int | None:
        there = self.manifest.get("steps") or [None]
        if proposal["value"] not in there:
            raise traitlets.TraitError(f"step is one of {there}, not {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("heads")
    def _known_heads(self, proposal: dict[str, Any]) -> list[int]:
        if unknown := set(proposal["value"]) - set(self.manifest["heads"]):
            raise traitlets.TraitError(
                f"heads are among {self.manifest['heads']}, {sorted(unknown)} are not"
            )
        return sorted(set(proposal["value"]))

    @traitlets.validate("locked")
    def _known_frame(self, proposal: dict[str, Any]) -> dict[str, Any] | None:
        at = proposal["value"]
        if at is None:
            return None
        frames = dict(zip(("query", "key"), self.manifest["maps"]["shape"][-2:], strict=True))
        if set(at) != {"side", "frame"} or at["side"] not in frames:
            raise traitlets.TraitError(
                f'locked is None or {{"side": "query" or "key", "frame": from 0}}, not {at}'
            )
        if not (isinstance(at["frame"], int) and 0 <= at["frame"] < frames[at["side"]]):
            raise traitlets.TraitError(
                f"there are frames 0 to {frames[at['side']] - 1}, not {at['frame']}"
            )
        return at

    @property
    def state(self) -> dict[str, Any]:
        """What is chosen in the view, as a dict."""
        return {name: getattr(self, name) for name in self._state_names}

    @property
    def payload(self) -> Payload:
        """What the view was given."""
        given = {name: getattr(self, name) for name in self._buffer_names}
        return Payload(self.manifest, {name: data for name, data in given.items() if data})

    def to_html(self) -> str:
        """Return the view in its present state as a stand-alone page."""
        return page(self.payload, self.state)

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the view in its present state as a stand-alone HTML file."""
        return write_page(self.to_html(), path)

    def _repr_html_(self) -> str:
        # The page is a guest here: it may run its own script and reach nothing of its host.
        return (
            f'<iframe srcdoc="{html.escape(self.to_html())}" sandbox="allow-scripts" '
            f'title="attention view" style="width:100%;height:{_FRAME_HEIGHT}px;border:0">'
            "</iframe>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = ({}, {}) if bundle is None else bundle
        return {**data, "text/html": self._repr_html_()}, metadata


class HeadView(SampleView):
    """The head view: poses on two sides, and between them a curve for each weight."""


class ModelView(SampleView):
    """All layers and heads as thumbnails; a click opens one."""


class HeatMap(SampleView):
    """The map of the heads that are on, with poses at both axes and the exact value."""


class Player(SampleView):
    """The skeleton in three dimensions, its frames or its joints lit by attention."""

    def save(self, path: str | os.PathLike[str], *, fps: float = 10) -> Path:
        """Write the segment that is shown as GIF or MP4; see `tssan_viz.views.film.save_film`."""
        from tssan_viz.views.film import save_film

        return save_film(self.payload, self.state, path, fps=fps)


class Explore(SampleView):
    """Head view, model view, heat map, player and, where recorded, queries and keys: all linked."""


def head_view(selection: Selection, sample: str | None = None, **state: Any) -> HeadView:
    """Show one sample's attention in a notebook.

    Parameters
    ----------
    selection
        Where to look; conditions on layer, head, segment and person narrow what the view offers.
    sample
        The sample's name; by default the selection's first.
    **state
        With what the view begins: layer, heads, locked, segment, person, orientation, threshold,
        frame, step, lit.

    Raises
    ------
    UserError
        If the selection holds no row of the sample.

    Examples
    --------
    >>> view = tssan_viz.head_view(store.select(class_name="put on jacket"))  # doctest: +SKIP
    >>> view.layer, view.heads = 2, [1, 3]  # doctest: +SKIP
    """
    return HeadView(sample_payload(selection, sample, view="head"), **state)


def model_view(selection: Selection, sample: str | None = None, **state: Any) -> ModelView:
    """Show one sample in a notebook: layers × heads as thumbnails, of which a click opens one.

    Parameters
    ----------
    selection, sample, **state
        As for `head_view`.

    Returns
    -------
    SampleView
        A widget whose state can be read and set; `save_html` keeps it as a page.

    Raises
    ------
    UserError
        There is no such sample, or the selection holds none.
    """
    return ModelView(sample_payload(selection, sample, view="model"), **state)


def heat_map(selection: Selection, sample: str | None = None, **state: Any) -> HeatMap:
    """Show one sample in a notebook: the map of a head, or the mean of several, between poses.

    Parameters
    ----------
    selection, sample, **state
        As for `head_view`.

    Returns
    -------
    SampleView
        A widget whose state can be read and set; `save_html` keeps it as a page.

    Raises
    ------
    UserError
        There is no such sample, or the selection holds none.
    """
    return HeatMap(sample_payload(selection, sample, view="heat"), **state)


def player(selection: Selection, sample: str | None = None, **state: Any) -> Player:
    """Play one sample's skeleton, lit by attention; parameters as for `head_view`.

    Raises
    ------
    UserError
        As `head_view`; or no poses were recorded.
    """
    return Player(sample_payload(selection, sample, view="player"), **state)


def explore(selection: Selection, sample: str | None = None, **state: Any) -> Explore:
    """Show one sample in a notebook: head view, model view, heat map and player, linked.

    Parameters
    ----------
    selection, sample, **state
        As for `head_view`.

    Returns
    -------
    SampleView
        A widget whose state can be read and set; `save_html` keeps it as a page.

    Raises
    ------
    UserError
        There is no such sample, or the selection holds none.
    """
    return Explore(sample_payload(selection, sample, view="explore"), **state)
