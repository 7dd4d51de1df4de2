"""The compare view and the evolution view as notebook widgets."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tssan_viz.views.groups import difference_payload, evolution_payload
from tssan_viz.views.html import page, write_page
from tssan_viz.views.payload import Payload, module_path
from tssan_viz.views.widget import anywidget, refuse_unknown_state, traitlets

if TYPE_CHECKING:
    from tssan_viz.selection import Selection


class _GroupView(anywidget.AnyWidget):
    """What both share: a payload, a state, and the page where no widget manager listens."""

    _esm = module_path()
    _state_names: ClassVar[tuple[str, ...]] = ()

    manifest = traitlets.Dict(read_only=True).tag(sync=True)
    maps = traitlets.Bytes(read_only=True).tag(sync=True)
    outlined = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)
    parts = traitlets.Bytes(None, allow_none=True, read_only=True).tag(sync=True)

    def __init__(self, payload: Payload, **state: Any) -> None:
        refuse_unknown_state(state, self.trait_names(), self._state_names)
        self.set_trait("manifest", payload.manifest)
        self.set_trait("maps", payload.buffers["maps"])
        self.set_trait("outlined", payload.buffers.get("outlined"))
        self.set_trait("parts", payload.buffers.get("parts"))
        super().__init__(**state)

    @property
    def state(self) -> dict[str, Any]:
        """What is chosen in the view, as a dict."""
        return {name: getattr(self, name) for name in self._state_names}

    def to_html(self) -> str:
        """Return the view in its present state as a stand-alone page."""
        buffers = {"maps": self.maps}
        if self.outlined is not None:
            buffers["outlined"] = self.outlined
        if self.parts is not None:
            buffers["parts"] = self.parts
        return page(Payload(self.manifest, buffers), self.state)

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the view in its present state as a stand-alone HTML file."""
        return write_page(self.to_html(), path)

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.to_html())}" sandbox="allow-scripts" '
            'title="attention view" style="width:100%;height:520px;border:0"></iframe>'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = ({}, {}) if bundle is None else bundle
        return {**data, "text/html": self._repr_html_()}, metadata


class CompareView(_GroupView):
    """Two groups' mean maps and their difference, head by head.

    Attributes
    ----------
    layer, head : int
        Which head is shown, from 1.
    """

    _state_names = ("layer", "head")

    layer = traitlets.Int(1).tag(sync=True)
    head = traitlets.Int(1).tag(sync=True)

    @traitlets.validate("layer", "head")
    def _known(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (there := self.manifest[f"{name}s"]):
            raise traitlets.TraitError(f"{name} is one of {there}, not {value}")
        return value


class EvolutionView(_GroupView):
    """One head's mean map along the steps of training, and its entropy.

    Attributes
    ----------
    step : int
        The step shown.
    """

    _state_names = ("step",)

    step = traitlets.Int(0).tag(sync=True)

    @traitlets.validate("step")
    def _known(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] not in (there := self.manifest["steps"]):
            raise traitlets.TraitError(f"step is one of {there}, not {proposal['value']}")
        return proposal["value"]


def compare_view(
    a: Selection,
    b: Selection,
    *,
    names: tuple[str, str] | None = None,
    permutations: int = 5000,
    seed: int = 0,
    by: Literal["subject", "class_name"] | None = None,
    **state: Any,
) -> CompareView:
    """Show two groups' mean maps and their difference, significant cells outlined.

    Parameters
    ----------
    a, b
        The groups, of one run; see `tssan_viz.comparison.difference.difference_maps`, which tests
        their difference with family-wise correction over all cells of all maps.
    names
        What they are called; by default as the classes where each has its own.
    permutations, seed
        Of the test.
    by
        Show each group's means by ``"subject"`` or ``"class_name"`` as well, one by one.
    **state
        With what the view begins: layer, head.

    Raises
    ------
    UserError
        The groups cannot be compared.
    """
    from tssan_viz.comparison.difference import difference_maps

    difference = difference_maps(a, b, permutations=permutations, seed=seed)
    names = names or _names(a, b)
    parts = (
        [] if by is None else [(name, x.mean(by)) for name, x in zip(names, (a, b), strict=True)]
    )
    payload = difference_payload(difference, names, parts=parts)
    layer, head = payload.manifest["places"][-1][0], payload.manifest["heads"][0]
    return CompareView(payload, **{"layer": layer, "head": head, **state})


def _names(a: Selection, b: Selection) -> tuple[str, str]:
    """Name two groups by their classes, where one of them has a class that the other has not."""
    classes = [list(x.samples()["class_name"].dropna().unique()) for x in (a, b)]
    of_a, of_b = classes
    if set(of_a) & set(of_b) or not (of_a and of_b) or min(len(of_a), len(of_b)) > 1:
        return "first group", "second group"
    first, second = (one[0] if len(one) == 1 else f"{len(one)} other classes" for one in classes)
    return first, second


def evolution_view(selection: Selection, *, layer: int, head: int, **state: Any) -> EvolutionView:
    """Show how one head's mean map and entropy change along the steps of training.

    Parameters
    ----------
    selection
        Of a run that was recorded while it trained.
    layer, head
        Which head, from 1.
    **state
        With what the view begins: step; by default the last.

    Raises
    ------
    UserError
        The head was not recorded, or the selection is empty.
    """
    payload = evolution_payload(selection, layer=layer, head=head)
    return EvolutionView(payload, **{"step": payload.manifest["steps"][-1], **state})
