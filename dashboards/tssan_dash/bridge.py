"""The Dash side of the bridge: a component that runs any module of the anywidget shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash.development.base_component import Component


class View(Component):
    """A module of the shape ``export default { render({ model, el }) }``, inside Dash.

    The module sees one model: `values` and `state` are its traits, and every entry of `buffers`
    is a trait that holds a ``DataView``. What the module saves with ``save_changes()`` arrives in
    the property `state`; what a callback writes into `state` reaches the module as
    ``change:<name>`` events, without mounting it anew. New `values` or `buffers` mount it anew,
    once they are there, so that the old picture stands until then. While either is None there is
    no picture.

    Parameters
    ----------
    id
        The component's id.
    module
        Address of the ES module, from this server.
    values
        Traits that only the server sets (the manifest of a payload).
    buffers
        Address of each binary trait, or ``{"url": ..., "offset": ..., "length": ...}`` (bytes) for
        a part of one. One address is fetched once, however many views read parts of it.
    state
        Traits that go both ways (layer, heads, locked, ...). JSON values only.
    label
        What the picture is, for who cannot see it.
    """

    _namespace = "tssan_dash"
    _type = "View"

    def __init__(
        self,
        id: str,
        module: str,
        values: Mapping[str, Any] | None = None,
        buffers: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        label: str = "",
    ) -> None:
        self._prop_names = ["id", "module", "values", "buffers", "state", "label"]
        self._valid_wildcard_attributes: list[str] = []
        self.available_properties = self._prop_names
        self.available_wildcard_properties: list[str] = []
        super().__init__(
            id=id,
            module=module,
            values=None if values is None else dict(values),
            buffers=None if buffers is None else dict(buffers),
            state=dict(state or {}),
            label=label,
        )
