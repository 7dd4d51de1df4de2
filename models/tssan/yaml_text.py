"""YAML read strictly: no key twice, nothing that stands for more than is written."""

from __future__ import annotations

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """Return what YAML text says, in plain values; JSON is YAML too.

    Of a key that comes twice, YAML's own rules would quietly keep the last. Aliases are not taken,
    since ten lines of them can stand for more than any memory holds.

    Parameters
    ----------
    text
        The contents of a file, or a single value.

    Raises
    ------
    ValueError
        Says what is wrong, and where.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _StrictLoader(yaml.SafeLoader):
    """Builds plain values only, as its base does."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            said = f"the alias *{alias.anchor} is not taken; write it out"
            raise yaml.composer.ComposerError(None, None, said, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | None):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key} comes twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)
