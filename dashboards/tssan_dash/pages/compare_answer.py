"""The answer on the page Compare: its sentence, maps, table and the matrix of classes."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc

from tssan_dash.asked import Asked
from tssan_dash.bridge import View
from tssan_dash.comparing import FILES, Answer, key_of
from tssan_dash.first_look import first_look
from tssan_dash.pages import in_words
from tssan_dash.pages.background import NotYet
from tssan_dash.pages.files import section_of_files
from tssan_dash.pages.parts import head_grid, section, shaded_table
from tssan_dash.recordings import Recordings
from tssan_dash.routes import below_prefix, buffer_url, module_url
from tssan_viz.errors import UserError

_COLUMNS = [
    ("layer", "Layer", "d", "counted from 1"),
    ("head", "Head", "d", "counted from 1"),
    ("W", "W", ".4f", "mean similarity of two subjects' maps within the class"),
    ("B", "B", ".4f", "mean similarity of two subjects' maps between the classes"),
    ("delta", "Δ", ".4f", "W − B: how much more alike the class is within than between"),
    ("low", "Δ from", ".4f", "lower end of Δ's interval (jackknife over subjects)"),
    ("high", "Δ to", ".4f", "upper end of Δ's interval (jackknife over subjects)"),
    ("hedges_g", "g", ".2f", "Hedges' g of the difference over subjects"),
    ("p", "p", ".4f", "permutation p of this head alone"),
    ("p_max_t", "p max-T", ".4f", "p corrected for all layers and heads (max-T)"),
    ("q", "q", ".4f", "false discovery rate over all layers and heads"),
]
# Beyond so many classes the matrix is a picture instead of a table with links.
_MOST_LINKED = 20


def answer_of(recordings: Recordings, asked: Asked) -> Answer:
    """Return what was worked out; `NotYet` where it was not."""
    answer = recordings.jobs.answer(key_of(recordings.store, asked))
    if not isinstance(answer, Answer):
        raise NotYet
    return answer


def known_already(recordings: Recordings, asked: Asked) -> Any:
    """Return what kept cells say at once, to be read while all else is worked out; or None."""
    found = first_look(recordings, asked)
    if found is None:
        return None
    deltas = found.pivot(index="layer", columns="head", values="delta")
    means = found.set_index(["layer", "head"])
    layers, heads = deltas.index.tolist(), deltas.columns.tolist()

    def words(row: int, column: int) -> str:
        one = means.loc[(layers[row], heads[column])]
        place = f"layer {layers[row]}, head {heads[column]}"
        return f"{place}: W {one['W']:.4f}, B {one['B']:.4f}, Δ"

    return section(
        "How alike, head by head",
        shaded_table(
            deltas.to_numpy(float),
            [f"Layer {layer}" for layer in layers],
            [str(head) for head in heads],
            corner="Δ = W − B",
            form=".4f",
            label=words,
            id="compare-first",
        ),
        mt="md",
        words="From kept cells, with W and B at each head. Intervals, the test and the maps follow "
        "as soon as they are worked out.",
    )


@in_words
def shown(recordings: Recordings, asked: Asked, answer: Answer, place: dict[str, str]) -> Any:
    """Return the answer as the page shows it.

    Parameters
    ----------
    recordings
        Of the store.
    asked, answer
        The question and what was worked out.
    place
        ``layer`` and ``head`` of which the address wants the maps; empty: the strongest.
    """
    chosen = answer.strongest
    if place:
        there = zip(answer.table["layer"], answer.table["head"], strict=True)
        if (place.get("layer"), place.get("head")) not in {(str(n), str(h)) for n, h in there}:
            raise UserError(
                f"The run {asked.run!r} has no head {place.get('head')} in a layer "
                f"{place.get('layer')}."
            )
        chosen = (int(place["layer"]), int(place["head"]))
    return dmc.Stack(
        [
            _summary(answer),
            _maps(recordings, asked, answer, chosen),
            section(
                "Every layer and head",
                head_grid(
                    answer.table,
                    _COLUMNS,
                    selected=None if chosen is None else f"{chosen[0]}-{chosen[1]}",
                    id="compare-table",
                ),
                words="A row shows its maps above.",
            ),
            *_classes(recordings, asked, answer),
            section_of_files(
                "compare",
                FILES,
                python=asked.python(recordings.store),
                command=asked.command(recordings.store),
                link=f"{below_prefix('/compare')}?{urlencode(asked.query())}",
            ),
        ],
        gap="md",
    )


def _summary(answer: Answer) -> dmc.Paper:
    return dmc.Paper(
        [
            dmc.Group(
                [
                    dmc.Title(answer.title, order=2, size="h4"),
                    dmc.Badge(f"{answer.n_subjects} subjects", variant="light", tt="none"),
                    dmc.Badge(
                        f"{answer.n_samples:,} videos", variant="light", color="gray", tt="none"
                    ),
                ],
                gap="xs",
                mb="xs",
            ),
            *[dmc.Text(sentence, size="sm") for sentence in answer.summary],
            *[dmc.Text(note, size="sm", c="dimmed") for note in answer.notes],
        ],
        id="compare-summary",
        withBorder=True,
        p="lg",
    )


def _maps(
    recordings: Recordings, asked: Asked, answer: Answer, chosen: tuple[int, int] | None
) -> dmc.Paper:
    if answer.maps is None:
        return section(
            "Mean maps and their difference",
            *[dmc.Text(note, size="sm", c="dimmed") for note in answer.maps_notes],
        )
    key = key_of(recordings.store, asked)
    layer, head = chosen or tuple(answer.maps.manifest["places"][0])
    return section(
        "Mean maps and their difference",
        View(
            id="compare-maps",
            module=module_url(),
            values={"manifest": answer.maps.manifest},
            buffers={
                name: buffer_url(data, answer=key, part=name)
                for name, data in answer.maps.buffers.items()
            },
            state={"layer": layer, "head": head},
            label="Mean maps and their difference",
        ),
        words="Outlined where the difference holds for all cells of all heads together "
        f"(p max-T ≤ {answer.alpha:g}).",
    )


def _classes(recordings: Recordings, asked: Asked, answer: Answer) -> list[Any]:
    names, similarity = answer.class_names, answer.similarity
    if similarity is None or len(names) < 2:
        return []

    def address(one: str, other: str) -> str:
        query = {**asked.query(), "class": one, "with": other}
        for name in ("by", "a", "b"):
            query.pop(name, None)
        if one == other:
            del query["with"]
        if len(recordings.runs()) == 1:
            del query["run"]
        return f"{below_prefix('/compare')}?{urlencode(query)}"

    if len(names) <= _MOST_LINKED:
        picture: Any = shaded_table(
            similarity,
            names,
            names,
            corner="",
            form=".2f",
            label=lambda i, j: f"{names[i]} and {names[j]}",
            address=lambda i, j: address(names[i], names[j]),
            id="compare-matrix",
        )
    else:
        payload = answer.matrix
        assert payload is not None
        key = key_of(recordings.store, asked)
        picture = View(
            id="compare-matrix",
            module=module_url(),
            values={"manifest": payload.manifest},
            buffers={"maps": buffer_url(payload.buffers["maps"], answer=key, part="matrix")},
            label="Similarity of every class with every other",
        )
    parts = [
        section(
            "Class × class",
            picture,
            words="How alike the maps of two classes are in two different subjects, over all "
            "heads; on the diagonal a class with itself. Like stands by like.",
        )
    ]
    if asked.by is None and asked.class_name in names:
        parts.append(_neighbours(asked, answer, address))
    return parts


def _neighbours(asked: Asked, answer: Answer, address: Any) -> dmc.Paper:
    assert asked.class_name is not None
    assert answer.similarity is not None
    here = answer.class_names.index(asked.class_name)
    found = [
        (name, float(value))
        for name, value in zip(answer.class_names, answer.similarity[here], strict=True)
        if name != asked.class_name and not math.isnan(value)
    ]
    found.sort(key=lambda pair: -pair[1])

    def lines(part: list[tuple[str, float]]) -> list[Any]:
        return [
            dmc.Group(
                [
                    dmc.Anchor(name, href=address(asked.class_name, name), size="sm"),
                    dmc.Text(f"{similarity:.3f}", size="sm", c="dimmed"),
                ],
                justify="space-between",
                wrap="nowrap",
            )
            for name, similarity in part
        ]

    columns = [("Classes, the nearest first", found)]
    if len(found) > 5:
        columns = [("Nearest classes", found[:5]), ("Farthest classes", found[::-1][:5])]
    return dmc.Paper(
        dmc.SimpleGrid(
            [
                dmc.Stack([dmc.Title(title, order=2, size="h5"), *lines(part)], gap=6)
                for title, part in columns
            ],
            cols={"base": 1, "sm": len(columns)},
            spacing="xl",
        ),
        id="compare-neighbours",
        withBorder=True,
        p="lg",
        maw=None if len(columns) > 1 else 480,
    )
