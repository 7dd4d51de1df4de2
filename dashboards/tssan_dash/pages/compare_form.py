"""The controls of the page Compare: what is compared, and which videos take part."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc

from tssan_dash.asked import GROUPED, Asked
from tssan_dash.pages import alias_filter, class_options
from tssan_dash.pages.background import HIDDEN
from tssan_dash.recordings import Recordings

# What is asked, in the order of its parameters in the address.
FORM = ("by", "class", "with", "a", "b", "subjects", "cameras", "correct", "step", "where")


def values_of(recordings: Recordings, run: str, column: str) -> list[str]:
    """Return what a column of a run holds, as the controls offer it."""
    values = recordings.store.rows(run)[column].dropna().unique().tolist()
    if column == "correct":
        return [str(bool(value)).lower() for value in sorted(values, reverse=True)]
    return [str(value) for value in sorted(values)]


def first_group(recordings: Recordings, run: str, by: str) -> dict[str, str]:
    """Return the group that is shown before one is chosen, as the address has it."""
    values = values_of(recordings, run, by)
    # Single subjects are not tested, so that the first half of them is a beginning.
    return {"a": ",".join(values[: max(1, len(values) // 2)] if by == "subject" else values[:1])}


def first_groups(recordings: Recordings, run: str) -> dict[str, str]:
    """Return by what a run without class names is compared before it is chosen."""
    for by in GROUPED:
        if len(values_of(recordings, run, by)) > 1:
            return {"by": by} | first_group(recordings, run, by)
    return {}


def form(recordings: Recordings, asked: Asked) -> dmc.Paper:
    """Return the controls, as `asked` says."""
    run = asked.run
    classes = recordings.classes(run)
    options = [{**o, "value": c.name} for o, c in zip(class_options(classes), classes, strict=True)]
    words = alias_filter(classes)["options"]["words"]
    find = {
        "function": "tssan_dash.byAlias",
        "options": {"words": {c.name: words[str(c.label)] for c in classes}},
    }
    offered = [by for by in GROUPED if len(values_of(recordings, run, by)) > 1 or by == asked.by]
    values = values_of(recordings, run, asked.by) if asked.by else []
    wide = {"base": "100%", "xs": 250}
    by_class, by_group = ({}, HIDDEN) if asked.by is None else (HIDDEN, {})
    filters = {
        "subjects": [str(s) for s in asked.subjects],
        "cameras": [str(c) for c in asked.cameras],
        "correct": None if asked.correct is None else str(asked.correct).lower(),
        "step": None if asked.step is None else str(asked.step),
        "where": asked.where,
    }
    chosen = sum(bool(value) for value in filters.values())

    def several(name: str, label: str, data: list[str], value: Any, none: str, **p: Any) -> Any:
        return dmc.MultiSelect(
            id=f"compare-{name}",
            label=label,
            data=data,
            value=value,
            placeholder="" if value else none,
            searchable=True,
            clearable=True,
            debounce=700,
            **p,
        )

    return dmc.Paper(
        [
            dmc.Group(
                [
                    dmc.Select(
                        id="compare-by",
                        label="Compare",
                        data=[
                            *([{"value": "classes", "label": "Classes"}] if classes else []),
                            *[{"value": by, "label": GROUPED[by]} for by in offered],
                        ],
                        value=asked.by or "classes",
                        allowDeselect=False,
                        w={"base": "100%", "xs": 160},
                    ),
                    dmc.Select(
                        id="compare-class",
                        label="Class" if asked.by is None else "Of the class",
                        data=options,
                        filter=find,
                        value=asked.class_name,
                        searchable=True,
                        allowDeselect=asked.by is not None,
                        clearable=asked.by is not None,
                        placeholder="all classes" if asked.by else "choose a class",
                        nothingFoundMessage="No class of this name was recorded",
                        w=wide,
                    ),
                    dmc.Select(
                        id="compare-with",
                        label="Compared with",
                        data=[o for o in options if o["value"] != asked.class_name],
                        filter=find,
                        value=asked.with_class,
                        placeholder="every other class",
                        searchable=True,
                        clearable=True,
                        nothingFoundMessage="No class of this name was recorded",
                        w=wide,
                        style=by_class,
                    ),
                    several(
                        "a", "First group", values, list(asked.a), "each", w=wide, style=by_group
                    ),
                    several(
                        "b",
                        "Second group",
                        values,
                        list(asked.b),
                        "all others",
                        w=wide,
                        style=by_group,
                    ),
                ],
                gap="sm",
                align="flex-start",
            ),
            dmc.Accordion(
                dmc.AccordionItem(
                    [
                        dmc.AccordionControl(
                            "Which videos take part"
                            + (f" ({chosen} conditions)" if chosen else ""),
                            px=0,
                        ),
                        dmc.AccordionPanel(
                            dmc.SimpleGrid(
                                [
                                    several(
                                        "subjects",
                                        "Subjects",
                                        values_of(recordings, run, "subject"),
                                        filters["subjects"],
                                        "all",
                                    ),
                                    several(
                                        "cameras",
                                        "Cameras",
                                        values_of(recordings, run, "camera"),
                                        filters["cameras"],
                                        "all",
                                    ),
                                    dmc.Select(
                                        id="compare-correct",
                                        label="Prediction",
                                        data=[
                                            {"value": "true", "label": "right"},
                                            {"value": "false", "label": "wrong"},
                                        ],
                                        value=filters["correct"],
                                        placeholder="right or wrong",
                                        clearable=True,
                                    ),
                                    dmc.Select(
                                        id="compare-step",
                                        label="Step of training",
                                        data=values_of(recordings, run, "step"),
                                        value=filters["step"],
                                        placeholder="as recorded",
                                        clearable=True,
                                    ),
                                    dmc.TextInput(
                                        id="compare-where",
                                        label="Condition",
                                        value=filters["where"],
                                        placeholder="confidence > 0.9",
                                        debounce=True,
                                    ),
                                ],
                                cols={"base": 1, "xs": 2, "md": 5},
                            ),
                        ),
                    ],
                    value="filters",
                ),
                value="filters" if chosen else None,
                variant="default",
                mt="xs",
                styles={"item": {"borderBottom": "none"}, "content": {"paddingInline": 0}},
            ),
        ],
        withBorder=True,
        px="lg",
        pt="md",
        pb=0,
    )
