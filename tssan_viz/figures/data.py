"""What a figure shows: which videos, layer and heads, and the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tssan_viz.errors import UserError
from tssan_viz.selection import Selection
from tssan_viz.store import AttentionStore, ClassEntry, SkeletonInfo, StoredSample

T = TypeVar("T")

MOST_HEADS = 8
"""How many heads fit beside each other over the width of a page."""

# The classes of the paper's Figure 5.
_PAPER = ("put on jacket", "reading")


@dataclass(frozen=True, eq=False)
class Video:
    """One row of the figure.

    Parameters
    ----------
    sample, class_name, class_code, subject, camera
        Which video.
    predicted_name
        What the network took it for; None where that was not recorded.
    frames : float32 (t,)
        Source frame numbers of the sampled frames, from 0; empty where the maps are over something
        else than these.
    poses : float32 (m, t, v, c) or None
        Joints of everyone who is there, the person shown first; None where there are none, or the
        maps are over something else than frames.
    maps : float32 (h, q, s)
        Attention of the layer shown, one map for each head shown.
    """

    sample: str
    class_name: str
    class_code: str | None
    subject: int | None
    camera: int | None
    predicted_name: str | None
    frames: NDArray[np.float32]
    poses: NDArray[np.float32] | None
    maps: NDArray[np.float32]

    @property
    def title(self) -> str:
        """The class and who acts, and the prediction where it was wrong."""
        parts = [f"{self.class_name} ({self.class_code})" if self.class_code else self.class_name]
        if self.subject is not None:
            parts.append(f"subject {self.subject}")
        if self.camera is not None:
            parts.append(f"camera {self.camera}")
        if self.predicted_name not in (None, self.class_name):
            parts.append(f"taken for {self.predicted_name}")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Figure5Data:
    """The videos of the figure, one layer, some heads; `notes` say what was decided unasked."""

    videos: tuple[Video, ...]
    layer: int
    layers: int
    heads: tuple[int, ...]
    run: str
    segment: int | None
    person: int
    skeleton: SkeletonInfo | None
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return the numbers behind the figure, one line per video, head, query and key.

        Returns
        -------
        DataFrame
            ``run``, ``sample``, ``class_name``, ``class_code``, ``subject``, ``camera``,
            ``segment``, ``person``, ``layer``, ``head`` (from 1), ``query``, ``key`` (sampled
            frames, from 0), ``query_frame``, ``key_frame`` (frames of the source, from 0; NaN
            where the map is not over the sampled frames) and ``weight``.
        """
        tables = []
        for video in self.videos:
            h, q, s = (index.ravel() for index in np.indices(video.maps.shape))
            tables.append(
                pd.DataFrame(
                    {
                        "run": self.run,
                        "sample": video.sample,
                        "class_name": video.class_name,
                        "class_code": video.class_code,
                        "subject": video.subject,
                        "camera": video.camera,
                        "segment": self.segment,
                        "person": self.person,
                        "layer": self.layer,
                        "head": np.array(self.heads)[h],
                        "query": q,
                        "key": s,
                        "query_frame": _source_frames(video, video.maps.shape[1])[q],
                        "key_frame": _source_frames(video, video.maps.shape[2])[s],
                        "weight": video.maps.ravel(),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)


def _source_frames(video: Video, count: int) -> NDArray[np.float32]:
    """Return the source's frame number of each of a map's queries or keys."""
    if len(video.frames) == count:
        return video.frames
    return np.full(count, np.nan, dtype=np.float32)


def figure5_data(
    source: AttentionStore | Selection,
    class_name: str | int | Sequence[str | int] | None = None,
    *,
    subject: int | Sequence[int] | None = None,
    layer: int | None = None,
    head: int | Sequence[int] | None = None,
    segment: int | None = None,
    person: int = 1,
    run: str | None = None,
    most_heads: int | None = MOST_HEADS,
) -> Figure5Data:
    """Choose what the figure shows and read it.

    Parameters are those of `figure5`; `subject`: show these subjects only; `most_heads`: keep no
    more heads than fit beside each other.
    """
    chosen, notes = considered(source, run, subject)
    if layer is None:
        layer = chosen.layers[-1]
    chosen = chosen.select(layer=layer, person=person, head=head)
    if not len(chosen):
        raise UserError(f"there is nothing to draw: {chosen.empty_because}")
    segments = sorted(chosen.rows()["segment"].dropna().unique().astype(int))
    if segment is None and segments:
        segment = segments[(len(segments) - 1) // 2]
        if len(segments) > 1:
            notes.append(f"segment {segment} of {len(segments)} is drawn; segment= chooses")
    if segment is not None:
        if segment not in segments:
            there = ", ".join(map(str, segments)) or "none"
            raise UserError(f"run {chosen.run!r} has no segment {segment}; it has {there}")
        chosen = chosen.select(segment=segment)
    classes = _classes(chosen, class_name)
    names = _videos(chosen, classes, notes)
    chosen = chosen.select(sample=names)
    rows = newest(chosen, names)
    maps = chosen.maps()
    values = maps.values[rows.to_numpy(), 0]
    heads = tuple(int(number) for number in maps["head"].values)
    if most_heads is not None and len(heads) > most_heads:
        if head is not None:
            raise UserError(
                f"{len(heads)} heads were asked for; {most_heads} fit on the width of a page"
            )
        # The heads whose rows are most concentrated say most about single moments.
        peak = values.max(axis=-1).mean(axis=(0, 2))
        keep = np.sort(np.argsort(-peak, kind="stable")[:most_heads])
        values, heads = values[:, keep], tuple(heads[n] for n in keep)
        notes.append(
            f"the {most_heads} heads with the highest peaks are drawn of {len(peak)}; "
            "--head chooses"
        )
    table = chosen.samples().set_index("sample")
    videos = []
    for name, value in zip(names, values, strict=True):
        stored = chosen.sample(name)
        line = table.loc[name]
        frames = stored.frames[(segment or 1) - 1]
        over_frames = value.shape[1:] == (len(frames), len(frames))
        videos.append(
            Video(
                sample=name,
                class_name=str(line["class_name"]),
                class_code=some(line["class_code"], str),
                subject=some(line["subject"], int),
                camera=some(line["camera"], int),
                predicted_name=some(line["predicted_name"], str),
                frames=frames if over_frames else frames[:0],
                poses=poses_of(stored, segment or 1, person) if over_frames else None,
                maps=value,
            )
        )
    return Figure5Data(
        videos=tuple(videos),
        layer=layer,
        layers=depth(chosen),
        heads=heads,
        run=chosen.run,
        segment=segment,
        person=person,
        skeleton=chosen.catalogue.skeleton,
        notes=tuple(dict.fromkeys([*chosen.notes, *notes])),
    )


def considered(
    source: AttentionStore | Selection, run: str | None, subject: int | Sequence[int] | None
) -> tuple[Selection, list[str]]:
    """Return what the videos are chosen from: a selection as it is, of a store the test videos."""
    if isinstance(source, Selection):
        chosen = source.select(run=run, subject=subject)
        if not len(chosen):
            raise UserError(f"there is nothing to draw: {chosen.empty_because}")
        return chosen, []
    everything = source.select(run=run, subject=subject)
    if not len(everything):
        raise UserError(f"there is nothing to draw: {everything.empty_because}")
    test = everything.select(split="test")
    if len(test):
        return test, []
    return everything, ["no video was recorded as test; all splits are considered"]


def _classes(
    chosen: Selection, class_name: str | int | Sequence[str | int] | None
) -> list[ClassEntry]:
    """Return the classes to show: those asked for, filled up with those of the paper."""
    catalogue = chosen.catalogue
    labels = [int(n) for n in dict.fromkeys(chosen.samples()["label"].dropna())]
    if class_name is None:
        asked: list[str | int] = []
    elif isinstance(class_name, str | int):
        asked = [class_name]
    else:
        asked = list(class_name)
    classes = list(dict.fromkeys(catalogue.resolve(name) for name in asked))
    for entry in classes:
        if entry.label not in labels:
            raise UserError(
                f"{entry}: the run {chosen.run!r} holds no such video in what is considered; "
                f"it has {', '.join(str(catalogue.name_of(label)) for label in labels[:8])}"
            )
    # Two classes are wanted: one for two subjects to agree in, one for contrast.
    spare = [label for name in _PAPER if (label := _label(chosen, name)) in labels]
    for label in dict.fromkeys([*spare, *labels]):
        if len(classes) >= 2:
            break
        other = catalogue.by_label.get(int(label)) if label is not None else None
        if other is not None and other not in classes:
            classes.append(other)
    if not classes:
        raise UserError(
            f"run {chosen.run!r} was recorded without classes; there is nothing to compare"
        )
    return classes


def _label(chosen: Selection, name: str) -> int | None:
    try:
        return chosen.catalogue.resolve(name).label
    except UserError:
        return None


def _videos(chosen: Selection, classes: list[ClassEntry], notes: list[str]) -> list[str]:
    """Return the videos: two subjects of the first class, one of each further class.

    Rightly recognised ones come first, then one camera for all, then the lowest replication, so
    that the subjects differ and nothing else does. Copies of other videos are left out.
    """
    samples = chosen.samples()
    samples["wrong"] = ~samples["correct"].map(lambda right: pd.isna(right) or bool(right))
    order = ["wrong", "camera", "replication", "subject", "sample"]
    samples = samples.sort_values(order, kind="stable", na_position="last")
    names: list[str] = []
    for n, entry in enumerate(classes):
        candidates = samples[samples["label"] == entry.label]
        wanted = 2 if n == 0 else 1
        subjects: list[object] = []
        taken = 0
        for name, subject in zip(candidates["sample"], candidates["subject"], strict=True):
            if taken == wanted:
                break
            if (not pd.isna(subject) and subject in subjects) or _is_copy(chosen, name):
                continue
            names.append(name)
            subjects.append(subject)
            taken += 1
        if taken < wanted:
            notes.append(
                f"{entry} was recorded of {taken} subject{'s' * (taken != 1)} only"
                if taken
                else f"every video of {entry} is a copy of another"
            )
    if not names:
        raise UserError("every video of the classes asked for is a copy of another")
    return names


def _is_copy(chosen: Selection, name: str) -> bool:
    return chosen.sample(name).duplicate_of is not None


def newest(chosen: Selection, names: list[str]) -> pd.Series:
    """Return for each video the position of its row, that of the newest step."""
    rows = chosen.rows()
    rows["position"] = np.arange(len(rows))
    rows = rows.sort_values("step", kind="stable").drop_duplicates("sample", keep="last")
    return rows.set_index("sample")["position"].loc[names]


def depth(chosen: Selection) -> int:
    """Return how many layers the selection's stream has."""
    sites = chosen.store.sites(chosen.run)
    return int(sites.loc[sites["stream"] == chosen.stream, "layer"].max())


def poses_of(stored: StoredSample, segment: int, person: int) -> NDArray[np.float32] | None:
    """Return who is there in a segment, (m, t, v, c), the person shown first; or None."""
    if stored.poses is None or person > len(stored.poses):
        return None
    present = (
        np.ones(len(stored.poses), bool)
        if stored.present is None
        else stored.present[:, segment - 1]
    )
    others = [m for m in range(len(stored.poses)) if m != person - 1 and present[m]]
    return stored.poses[[person - 1, *others], segment - 1]


def some(value: Any, kind: Callable[[Any], T]) -> T | None:
    """Return a value of a table as a plain one; None where it is missing."""
    return None if pd.isna(value) else kind(value)
