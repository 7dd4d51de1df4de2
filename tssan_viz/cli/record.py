"""The command `tssan-viz record`: keep what a trained network attends to, video by video."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.markup import escape

from tssan_viz.cli.common import DataOption, console, counting_bar, err_console, quoted
from tssan_viz.errors import UserError
from tssan_viz.site import SAMPLE_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from tssan.clips import Clips
    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.sequence import SkeletonSequence
    from tssan.training import TrainedRun

    from tssan_viz.store import AttentionStore
    from tssan_viz.store.catalogue import Catalogue
    from tssan_viz.store.schema import StoredSample


class SplitChoice(StrEnum):
    """Which part of the data set is recorded."""

    test = "test"
    train = "train"
    all = "all"


@dataclass(frozen=True)
class RecordedRun:
    """What `record_run` did.

    Attributes
    ----------
    store
        Where the maps are.
    run
        The name under which they are kept.
    samples, skipped
        Videos recorded now, and those that the store held already.
    rows
        Rows written now.
    accuracy
        Share of the run's recorded videos of this split that the network names rightly; None when
        there are none.
    """

    store: AttentionStore
    run: str
    samples: int
    skipped: int
    rows: int
    accuracy: float | None


def record(
    run: Annotated[
        Path,
        typer.Option("--run", help="A folder that `tssan-viz train` wrote.", show_default=False),
    ],
    data: DataOption,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "--store",
            help="The store to write to, created if need be. "
            "Default: $TSSAN_STORE, else ./attention-store.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        SplitChoice, typer.Option("--split", help="Which videos: of unseen subjects, or others.")
    ] = SplitChoice.test,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Videos at a time.")] = 64,
    queries: Annotated[
        bool,
        typer.Option(
            "--queries", help="Also keep the queries and keys, for `tssan-viz view` to show."
        ),
    ] = False,
) -> None:
    """Record what a trained network attends to, over the videos of a prepared data set.

    What the store holds already is not computed again, so that an interrupted recording goes on
    where it was.

        tssan-viz record --run run --data utd

        tssan-viz record --run run --data utd --split all --out s3://lab/attention
    """
    from tssan.dataset import SkeletonDataset
    from tssan.training import load_run

    from tssan_viz.store import open_store

    trained = load_run(run)
    dataset = SkeletonDataset.open(data)
    store = open_store(out, create=True)
    try:
        recorded = record_run(trained, dataset, store, split=split.value, batch_size=batch_size)
        if queries:
            from tssan_viz.cli.queries import record_queries

            chosen = chosen_videos(trained, dataset, split.value)
            kept = record_queries(
                trained, dataset, store, [i for i, _ in chosen], batch_size=batch_size
            )
            console.print(f"queries and keys of {kept} videos")
    except KeyboardInterrupt:
        err_console.print("interrupted: what is recorded is kept; the same command goes on there")
        raise typer.Exit(130) from None
    _print_outcome(recorded, split.value, given=out)


def record_run(
    trained: TrainedRun,
    dataset: SkeletonDataset,
    store: AttentionStore,
    *,
    split: str = "test",
    batch_size: int = 64,
    progress: bool = True,
) -> RecordedRun:
    """Record a trained run over a data set, into the run of the store that has its folder's name.

    Parameters
    ----------
    trained
        What `tssan.training.load_run` or `train` returned.
    dataset
        The data set that it was trained on.
    store
        Where the maps go. Videos of which it holds this run's maps are passed over.
    split
        ``test``, ``train`` or ``all``, of the protocol that the run was trained with.
    batch_size
        Videos at a time.
    progress
        Show a progress bar.

    Returns
    -------
    RecordedRun
        What was done.

    Raises
    ------
    UserError
        The data set is not the run's own, or the store holds a run of the same name that was made
        from another checkpoint.
    """
    import torch

    from tssan_viz.recording import record as record_attention

    _refuse_other_dataset(trained, dataset)
    run = trained.path.resolve().name
    held = _held_samples(store, run, trained.checkpoint_sha256, trained.path)
    wanted = chosen_videos(trained, dataset, split)
    due = [(i, name) for i, name in wanted if str(dataset.index["sample"].iloc[i]) not in held]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = trained.network.to(device).eval()
    rows = 0
    if due:
        recorder = record_attention(
            network,
            store,
            run=run,
            catalogue=make_catalogue(dataset),
            info=_run_info(trained, dataset, device),
        )
        with recorder, torch.inference_mode(), counting_bar("videos", shown=progress) as bar:
            task = bar.add_task(f"recording {escape(run)}", total=len(due))
            for start in range(0, len(due), batch_size):
                batch = due[start : start + batch_size]
                indices = [i for i, _ in batch]
                clips = trained.clips(dataset, indices)
                recorder.samples(
                    **announcement(dataset, indices, clips, network.row_axes),
                    split=[name for _, name in batch],
                )
                logits = network(*(part.to(device) for part in clips[:3]))
                recorder.predictions(logits)
                bar.advance(task, len(batch))
        rows = recorder.report().rows
    return RecordedRun(
        store=store,
        run=run,
        samples=len(due),
        skipped=len(wanted) - len(due),
        rows=rows,
        accuracy=_accuracy(store, run, split),
    )


def chosen_videos(
    trained: TrainedRun, dataset: SkeletonDataset, split: str
) -> list[tuple[int, str]]:
    """Return the videos of ``test``, ``train`` or ``all``: where they are, and in which part."""
    parts = dataset.split(trained.protocol)
    chosen = {"test": parts.test, "train": parts.train}
    return [(int(i), name) for name in chosen if split in (name, "all") for i in chosen[name]]


def announcement(
    dataset: SkeletonDataset, indices: Sequence[int], clips: Clips, axes: Sequence[str]
) -> dict[str, Any]:
    """Say of some sequences and their clips what `Recorder.samples` is to be told.

    Parameters
    ----------
    dataset, indices, clips
        Where they are, which, and what the network is given.
    axes
        `SkeletonNetwork.row_axes`: what its rows of attention are made of. Where persons met
        before the attention, a row is there if any person is.
    """
    present = clips.present if "m" in axes else clips.present.any(dim=2)
    return {
        "axes": tuple(axes),
        "present": present,
        "stored": _stored_samples(dataset, indices, clips),
        **_descriptions(dataset, indices),
    }


def make_catalogue(dataset: SkeletonDataset) -> Catalogue:
    """Say of a data set what a store needs to know of it: classes, skeleton, frames per second."""
    from tssan_viz.store.catalogue import Catalogue, ClassEntry, SkeletonInfo

    topology = dataset.topology
    return Catalogue(
        dataset=dataset.name,
        classes=tuple(
            ClassEntry(label=c.label, name=c.name, code=c.code, aliases=tuple(c.aliases))
            for c in dataset.classes
        ),
        skeleton=SkeletonInfo(
            name=topology.name,
            joints=tuple(topology.joints),
            bones=tuple((int(a), int(b)) for a, b in topology.bones),
            sides=tuple(topology.sides),
            units=dataset.units,
            head_joint=topology.head,
        ),
        fps=dataset.fps,
    )


def poses_to_draw(sequence: SkeletonSequence, frames: np.ndarray, persons: int) -> np.ndarray:
    """Bring a sequence's own joints to the frames that a clip was resampled to.

    Joints keep their camera's axes and units (y up; image coordinates, whose y points down, are
    turned), unlike what the network sees, which is aligned and scaled.

    Parameters
    ----------
    sequence
        joints (m, t, v, c).
    frames
        Source frame numbers (k, t), fractional.
    persons
        How many persons the clip holds.

    Returns
    -------
    ndarray
        float32 (m, k, t, v, c); the origin is the centre joint of the first person who is ever
        seen, in the first frame that shows them. Joints move in straight lines from one frame that
        shows their person to the next, and rest before the first and after the last; a person who
        is never seen is zero.
    """
    import numpy as np

    joints, present = sequence.joints, sequence.present
    v, c = joints.shape[2:]
    poses = np.zeros((persons, *frames.shape, v, c), np.float32)
    origin = None
    for m in range(min(persons, len(joints))):
        seen = np.flatnonzero(present[m])
        if not len(seen):
            continue
        if origin is None:
            origin = joints[m, seen[0], sequence.topology.centre]
        after = np.searchsorted(seen, frames, side="left").clip(0, len(seen) - 1)
        before = (np.searchsorted(seen, frames, side="right") - 1).clip(0, len(seen) - 1)
        first, last = seen[before], seen[after]
        share = (frames - first) / np.maximum(last - first, 1)
        share = share.clip(0, 1)[..., None, None].astype(np.float32)
        poses[m] = joints[m, first] * (1 - share) + joints[m, last] * share - origin
    if sequence.units == "image":
        poses[..., 1] *= -1
    return poses


def _stored_samples(
    dataset: SkeletonDataset, indices: Sequence[int], clips: Clips
) -> list[StoredSample]:
    import numpy as np

    from tssan_viz.store.schema import StoredSample

    frames = clips.frames.cpu().numpy().astype(np.float32)
    present = clips.present.cpu().numpy()
    stored = []
    for row, i in enumerate(indices):
        sequence = dataset[i]
        duplicate = dataset.index["duplicate_of"].iloc[i]
        stored.append(
            StoredSample(
                sample=sequence.sample,
                label=sequence.label,
                class_name=sequence.class_name,
                class_code=sequence.class_code,
                subject=sequence.subject,
                camera=sequence.camera,
                frames=frames[row],
                seconds=(frames[row] / sequence.fps).astype(np.float32),
                poses=poses_to_draw(sequence, frames[row], present.shape[2]),
                present=present[row].T,
                duplicate_of=duplicate if isinstance(duplicate, str) and duplicate else None,
            )
        )
    return stored


def _descriptions(dataset: SkeletonDataset, indices: Sequence[int]) -> dict[str, Any]:
    lines = dataset.index.iloc[list(indices)]
    return {column: lines[column].tolist() for column in ("sample", *SAMPLE_COLUMNS)}


def _run_info(trained: TrainedRun, dataset: SkeletonDataset, device: Any) -> dict[str, Any]:
    import torch

    import tssan_viz

    return {
        "checkpoint_sha256": trained.checkpoint_sha256,
        "recipe": trained.recipe.to_dict(),
        "seed": trained.seed,
        "dataset": dataset.name,
        "protocol": trained.protocol,
        "test_accuracy": trained.results.get("test_accuracy"),
        "device": str(device),
        "precision": "float32",
        "torch": torch.__version__,
        "tssan_viz": tssan_viz.__version__,
    }


def _refuse_other_dataset(trained: TrainedRun, dataset: SkeletonDataset) -> None:
    from tssan.dataset import same_data

    if trained.dataset_name != dataset.name:
        raise UserError(
            f"{trained.path} was trained on {trained.dataset_name}, and the data set given is "
            f"{dataset.name}: give the folder prepared from {trained.dataset_name}"
        )
    if trained.classes != tuple(c.name for c in dataset.classes):
        raise UserError(
            f"{trained.path} tells {len(trained.classes)} classes apart, and the data set given "
            f"has {len(dataset.classes)}, or others: give the data set that it was trained on"
        )
    same_data(trained.results, dataset)


def _held_samples(store: AttentionStore, run: str, checkpoint: str, path: Path) -> set[str]:
    """Names of the samples that the store holds of this run, made from this checkpoint."""
    if run not in store.run_names():
        return set()
    other = store.info(run).get("checkpoint_sha256")
    if other != checkpoint:
        raise UserError(
            f"the store {store.url} holds a run {run!r} that another checkpoint made "
            f"(sha256 {str(other)[:12]}…, and that of {path} is {checkpoint[:12]}…): rename the "
            "run's folder, or record into another store with --out"
        )
    rows = store.rows(run)
    return set(rows.loc[rows["phase"] == "inference", "sample"])


def _accuracy(store: AttentionStore, run: str, split: str) -> float | None:
    rows = store.rows(run)
    rows = rows[(rows["phase"] == "inference") & ((split == "all") | (rows["split"] == split))]
    correct = rows.drop_duplicates("sample")["correct"].dropna()
    return float(correct.astype(float).mean()) if len(correct) else None


def _print_outcome(recorded: RecordedRun, split: str, *, given: str | None) -> None:
    part = "videos" if split == "all" else f"{split} videos"
    known = f", {recorded.skipped} were there already" if recorded.skipped else ""
    console.print(
        f"recorded {recorded.samples} {part} as {recorded.rows} rows of run "
        f"[bold]{escape(recorded.run)}[/bold]{known}"
    )
    if recorded.accuracy is not None:
        console.print(f"accuracy over the recorded {part}: {recorded.accuracy:.1%}")
    size = decimal(recorded.store.size())
    console.print(f"store: {escape(recorded.store.url)} ({size})", soft_wrap=True)
    first = recorded.store.rows(recorded.run).iloc[0]
    option = f" --store {shlex.quote(given)}" if given else ""
    # Commands ask the newest run unless told, and one that was gone on with need not be that.
    if recorded.store.latest_run() != recorded.run:
        option += f" --run {shlex.quote(recorded.run)}"
    console.print("next:")
    for command in (
        f"tssan-viz compare --class {quoted(first['class_name'])}{option}",
        f"tssan-viz view {shlex.quote(first['sample'])}{option}",
        f"tssan-viz serve{f' {shlex.quote(given)}' if given else ''}",
    ):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
