"""The long work of the page Subjects: mean maps by class and subject, by class and camera."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tssan_dash.asked import asked_in, whole_number
from tssan_dash.figure_files import write_file
from tssan_dash.work import answer_key
from tssan_viz.comparison.camera_means import camera_mean_maps
from tssan_viz.comparison.cell_layers import choose, iter_cell_maps
from tssan_viz.errors import UserError
from tssan_viz.views.payload import heatmaps_payload

if TYPE_CHECKING:
    from tssan_viz.comparison.reading import Progress
    from tssan_viz.figures import PaperFigure
    from tssan_viz.store import AttentionStore
    from tssan_viz.views.payload import Payload

Keep = Callable[[str, Any], None]

FILES = {
    "pdf": "Subjects (PDF)",
    "svg": "Subjects (SVG)",
    "png": "Subjects (PNG)",
    "html": "Subjects (HTML)",
    "decoding": "Person or action (PDF)",
}

# A small map on the screen has no more dots than this along a side.
TILE = 64


@dataclass(frozen=True)
class SubjectsAsked:
    """Which maps the page shows: of one layer and head; one class at large, None: all together."""

    run: str
    layer: int
    head: int
    class_name: str | None = None

    @classmethod
    def of(cls, store: AttentionStore, run: str, query: Mapping[str, str]) -> SubjectsAsked:
        """Read the question of an address.

        Raises
        ------
        UserError
            Something in it does not exist; says what does.
        """
        selection = store.select(run=run)
        if not len(selection):
            raise UserError(f"The run {run!r} holds no video yet.")
        layers = list(selection.layers)
        layer = whole_number(query, "layer", layers, layers[-1], f"The run {run!r}")
        heads = list(selection.select(layer=layer).heads)
        head = whole_number(query, "head", heads, heads[0], f"Layer {layer}")
        named = query.get("class", "").strip()
        return cls(run, layer, head, store.catalogue(run).resolve(named).name if named else None)

    def query(self) -> dict[str, str]:
        """Return the parameters of the address that asks this."""
        found = {"run": self.run, "layer": str(self.layer), "head": str(self.head)}
        return found if self.class_name is None else {**found, "class": self.class_name}

    def key(self, store: AttentionStore) -> str:
        """Return the name under which the maps lie; they are the same whatever class is looked at.

        What is drawn of them on paper depends on the class.
        """
        maps = replace(self, class_name=None)
        return answer_key({"what": "subjects", **maps.query()}, store.arrow_rows(self.run))

    def python(self, store: AttentionStore) -> str:
        """Return the lines of Python that give the same."""
        of = "" if self.class_name is None else f"{self.class_name!r}, "
        return "\n".join(
            [
                "import tssan_viz.figures",
                "from tssan_viz.comparison.decoding import decodability",
                "from tssan_viz.comparison.variance import variance_shares",
                f"store = tssan_viz.open_store({store.url!r})",
                f"rows = store.select(run={self.run!r})",
                f'means = rows.select(layer={self.layer}, head={self.head}).mean(["class_name", '
                '"subject"])',
                "variance_shares(rows).wide()",
                "decodability(rows).table",
                f"tssan_viz.figures.subjects(store, {of}layer={self.layer}, head={self.head}, "
                f"run={self.run!r})",
            ]
        )

    def command(self, store: AttentionStore) -> str:
        """Return the commands that give the same."""
        where = ["--store", store.url, "--run", self.run]
        of = [] if self.class_name is None else ["--class", self.class_name]
        place = ["--layer", str(self.layer), "--head", str(self.head)]
        lines = [
            ["tssan-viz", "figure", "subjects", *of, *place, *where, "--out", "subjects.pdf"],
            ["tssan-viz", "figure", "decoding", *where, "--out", "decoding.pdf"],
        ]
        about = of or ["--by", "subject"]
        lines.append(["tssan-viz", "compare", *about, *where, "--show", "variance,decoding"])
        return "\n".join(shlex.join(line) for line in lines)

    @property
    def title(self) -> str:
        """What the large maps show."""
        what = self.class_name or "all classes together"
        return f"{what[:1].upper()}{what[1:]}: layer {self.layer}, head {self.head}"

    def figure(self, store: AttentionStore) -> PaperFigure:
        """Draw one head's mean map of every subject, for paper."""
        from tssan_viz.figures import subjects

        return subjects(store, self.class_name, layer=self.layer, head=self.head, run=self.run)


@dataclass(frozen=True, eq=False)
class SubjectMaps:
    """Mean maps of one head, on one scale.

    Attributes
    ----------
    classes : list of str
    labels, subjects, cameras : list of int
        What occurs; no cameras where there are fewer than two.
    by_subject : (c, s, q, k) float32
        Each view of a video weighs the same; NaN where a subject did not do this.
    by_camera : (c, v, q, k) float32
        Each subject weighs the same.
    low, high : float
        Where the scale begins and ends: the least and the greatest weight, but for the outermost
        half percent.
    even : float or None
        Even attention, 1 / k, where it is on the scale.
    pictures : dict
        PNG of all small maps under each other and beside each other: ``subjects.png`` and
        ``cameras.png``.
    notes : list of str
        What was decided without being asked.
    """

    classes: list[str]
    labels: list[int]
    subjects: list[int]
    cameras: list[int]
    by_subject: NDArray[np.float32]
    by_camera: NDArray[np.float32]
    low: float
    high: float
    even: float | None
    pictures: dict[str, bytes]
    notes: list[str]

    def at_large(self, class_name: str | None) -> tuple[list[int], NDArray[np.float32]]:
        """Return who did a class (None: any), and their mean maps (s, q, k) over these classes."""
        if class_name is None:
            maps = self.by_subject
        else:
            if class_name not in self.classes:
                raise UserError(
                    f"None of the compared videos is of the class {class_name!r}; there are "
                    f"{', '.join(self.classes)}."
                )
            at = self.classes.index(class_name)
            maps = self.by_subject[at : at + 1]
        known = np.isfinite(maps[:, :, 0, 0])
        counts = known.sum(axis=0)
        there = np.flatnonzero(counts)
        sums = np.where(known[:, :, None, None], maps, 0).sum(axis=0)
        return [self.subjects[i] for i in there], sums[there] / counts[there, None, None]

    @property
    def buffers(self) -> dict[str, bytes]:
        """What the page fetches, by name."""
        large = {
            "large": self.at_large(None)[1].astype("<f4").tobytes(),
            **{
                f"large-{label}": self.at_large(name)[1].astype("<f4").tobytes()
                for label, name in zip(self.labels, self.classes, strict=True)
            },
        }
        return {**self.pictures, **large}


def maps_job(
    store: AttentionStore, report: Progress, keep: Keep, question: Mapping[str, Any]
) -> dict[str, str]:
    """Work out the maps of all heads of a layer, so that another head is there at once."""
    asked = asked_in(SubjectsAsked.of, store, question)
    chosen = choose(store.select(run=asked.run), layer=asked.layer)
    labels = list(chosen.layout.labels)
    ((_, heads, cells),) = iter_cell_maps(chosen, report)
    of_camera = camera_mean_maps(chosen, asked.layer, report)
    shape = (len(labels), len(chosen.layout.subjects), *cells.shape[1:])
    by_subject = np.full(shape, np.nan, np.float32)
    by_subject[np.searchsorted(labels, chosen.label), chosen.subject] = cells
    for i, head in enumerate(heads):
        _, cameras, by_camera = of_camera
        if len(cameras) < 2:
            cameras, by_camera = [], by_camera[:, :0]
        maps = _subject_maps(
            chosen.names(chosen.layout.labels),
            labels,
            list(chosen.layout.subjects),
            cameras,
            by_subject[:, :, i],
            by_camera[:, :, i],
            chosen.notes,
        )
        keep(replace(asked, head=head).key(store), maps)
        report("drawing", i + 1, len(heads))
    return {"key": asked.key(store)}


def export_job(
    store: AttentionStore, report: Progress, keep: Keep, wish: Mapping[str, Any]
) -> dict[str, str]:
    """Write a figure or the page; returns where its bytes lie, and its name."""
    asked = asked_in(SubjectsAsked.of, store, wish)

    def make(ending: str) -> PaperFigure | str:
        if ending == "html":
            from tssan_viz.views.html import page

            kept: dict[str, SubjectMaps] = {}
            maps_job(store, report, kept.__setitem__, wish)
            payload = large_payload(kept[asked.key(store)], asked.class_name)
            return page(payload, title=asked.title)
        if ending == "decoding":
            from tssan_viz.figures import decoding

            return decoding(store, run=asked.run)
        return asked.figure(store)

    return write_file(
        keep,
        wish,
        FILES,
        what="the page",
        name=lambda ending: "decoding.pdf" if ending == "decoding" else f"subjects.{ending}",
        key=lambda ending: answer_key(
            {**asked.query(), "file": ending}, store.arrow_rows(asked.run)
        ),
        make=make,
    )


def large_payload(maps: SubjectMaps, class_name: str | None) -> Payload:
    """Return the mean map of each subject in a class (None: any), on the scale of all of them."""
    who, large = maps.at_large(class_name)
    payload = heatmaps_payload(
        large.astype("<f4"),
        titles=[f"subject {n}" for n in who],
        units={"seq": "mean attention weight"},
    )
    return replace(payload, manifest=payload.manifest | {"ranges": {"seq": [maps.low, maps.high]}})


def _subject_maps(
    classes: list[str],
    labels: list[int],
    subjects: list[int],
    cameras: list[int],
    by_subject: NDArray[np.float32],
    by_camera: NDArray[np.float32],
    notes: list[str],
) -> SubjectMaps:
    values = by_subject[np.isfinite(by_subject)]
    low, high = (float(v) for v in np.quantile(values, (0.005, 0.995)))
    # What 16 bits round is not to be seen.
    high = max(high, low + 0.01 * abs(high), 1e-6)
    sums = by_subject.sum(axis=-1)
    keys = by_subject.shape[-1]
    rows_sum_to_one = np.allclose(sums[np.isfinite(sums)], 1, atol=0.02)
    even = 1 / keys if rows_sum_to_one and low <= 1 / keys <= high else None
    pictures = {"subjects.png": _picture(by_subject, low, high)}
    if cameras:
        pictures["cameras.png"] = _picture(by_camera, low, high)
    return SubjectMaps(
        classes, labels, subjects, cameras, by_subject, by_camera, low, high, even, pictures, notes
    )


def _picture(maps: NDArray[np.float32], low: float, high: float) -> bytes:
    """Draw maps (rows, columns, q, k) as one PNG without gaps."""
    import matplotlib
    from PIL import Image

    maps = np.stack([np.stack([_small(one) for one in row]) for row in maps])
    rows, columns, q, k = maps.shape
    sheet = maps.swapaxes(1, 2).reshape(rows * q, columns * k)
    known = np.isfinite(sheet)
    # The last colour of the palette is none at all.
    places = np.clip((np.where(known, sheet, low) - low) / (high - low), 0, 1)
    index = np.where(known, np.round(254 * places), 255).astype(np.uint8)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 255))[:, :3]
    image = Image.fromarray(index, "P")
    image.putpalette(np.round(255 * colours).astype(np.uint8).tobytes() + b"\0\0\0")
    target = io.BytesIO()
    image.save(target, "PNG", transparency=255)
    return target.getvalue()


def _small(one: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average neighbours of a map that is larger than it is shown."""
    for axis in (0, 1):
        length = one.shape[axis]
        if length > TILE:
            edges = np.linspace(0, length, TILE + 1).astype(int)
            widths = np.diff(edges).reshape([-1 if a == axis else 1 for a in (0, 1)])
            one = (np.add.reduceat(one, edges[:-1], axis=axis) / widths).astype(np.float32)
    return one
