"""One skeleton file and a trained run, straight to what views show: no data set, no store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from tssan.skeletons.classes import ActionClass
    from tssan.skeletons.sequence import SkeletonSequence
    from tssan.training import TrainedRun

    from tssan_viz.selection import Selection


@contextmanager
def recorded_file(
    file: Path, run: Path, *, attended: dict[str, tuple[Tensor, Tensor]] | None = None
) -> Iterator[Selection]:
    """Show one file to a trained network, and give what it attended to.

    What is recorded lies in a temporary folder, which goes when the block ends.

    Parameters
    ----------
    file
        A file of one sequence, of any format that `tssan-viz prepare auto` knows.
    run
        The folder of a trained run.
    attended
        Is given the queries and keys (r, h, t, d) of every site, by its name.

    Raises
    ------
    UserError
        The file is not known, is damaged or holds several sequences, or its joints are others than
        those that the run was trained on.
    """
    import torch
    from tssan.dataset import prepare
    from tssan.training import load_run

    from tssan_viz.cli.queries import attending
    from tssan_viz.cli.record import announcement, make_catalogue
    from tssan_viz.recording import record as record_attention
    from tssan_viz.store import open_store

    trained = load_run(run)
    found, known = read_one(file)
    sequence, classes = in_classes_of(trained, found, known)
    if found.topology.name != trained.results["topology"]:
        raise UserError(
            f"{run} was trained on the joints {trained.results['topology']}, and {file} has "
            f"{found.topology.name}"
        )
    with tempfile.TemporaryDirectory(prefix="tssan-") as folder:
        dataset = prepare(
            [sequence],
            Path(folder) / "data",
            name=trained.dataset_name,
            classes=classes,
            protocols=(),
        )
        clips = trained.clips(dataset, [0])
        network = trained.network.eval()
        store = open_store(Path(folder) / "store", create=True)
        name = trained.path.resolve().name
        recorder = record_attention(network, store, run=name, catalogue=make_catalogue(dataset))
        told = {} if attended is None else attended
        with recorder, torch.inference_mode(), attending(network, told):
            recorder.samples(**announcement(dataset, [0], clips, network.row_axes))
            recorder.predictions(network(*clips[:3]))
        yield store.select(run=name)


def read_one(file: Path) -> tuple[SkeletonSequence, tuple[ActionClass, ...]]:
    """Read a file of one sequence; return it with the classes of the data set that it is of.

    Raises
    ------
    UserError
        It holds several.
    DataError
        It is not known, or damaged.
    """
    from tssan.skeletons import files
    from tssan.skeletons.annotations import Annotations
    from tssan.skeletons.formats import open_source
    from tssan.skeletons.recognise import recognise

    if any(files.matches(file.name, kind) for kind in files.KINDS):
        # One of the many files of a data set, which are looked for in folders and archives.
        with tempfile.TemporaryDirectory(prefix="tssan-") as folder:
            (Path(folder) / file.name).symlink_to(file.resolve())
            known = recognise(folder)
            many = open_source(known.format, known.source)
            if not isinstance(many, Annotations) and len(many.files) == 1:
                (only,) = many.files
                return many.read(only.read(), only.name), tuple(many.classes)
    known = recognise(file)
    opened = open_source(known.format, known.source)
    number = len(opened) if isinstance(opened, Annotations) else len(opened.files)
    if number != 1:
        raise UserError(
            f"{file} holds {number:,} sequences, and one is shown: `tssan-viz prepare auto` and "
            "`tssan-viz record` take them all"
        )
    if isinstance(opened, Annotations):
        return opened[0], tuple(opened.classes)
    (only,) = opened.files
    return opened.read(only.read(), only.name), tuple(opened.classes)


def in_classes_of(
    trained: TrainedRun, sequence: SkeletonSequence, known: tuple[ActionClass, ...]
) -> tuple[SkeletonSequence, tuple[ActionClass, ...]]:
    """Give a sequence the label that its class has in a run.

    A class that the run does not know keeps its name after those that it does, so that what the
    network answers is wrong, as it cannot but be.
    """
    from tssan.skeletons.classes import ActionClass

    by_name = {entry.name: entry for entry in known}
    names = list(trained.classes)
    if sequence.class_name is not None and sequence.class_name not in names:
        names.append(sequence.class_name)
    classes = tuple(
        replace(by_name[name], label=label)
        if name in by_name
        else ActionClass(label=label, name=name, code="")
        for label, name in enumerate(names)
    )
    label = None if sequence.class_name is None else names.index(sequence.class_name)
    return replace(sequence, label=label), classes


def queries_and_keys(
    selection: Selection, attended: dict[str, tuple[Tensor, Tensor]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the queries and the keys of a file's maps, each (k, m, layer, h, t, d).

    Parameters
    ----------
    selection
        Of `recorded_file`.
    attended
        What it was given there.
    """
    import numpy as np

    rows = selection.rows()
    k = len(selection.sample(str(rows["sample"].iloc[0])).frames)
    segments = sorted(rows["segment"].unique())
    persons = sorted(rows["person"].dropna().unique()) or [1]
    sites = [s for s in selection.store.stored_sites(selection.run) if s.stream == selection.stream]
    by_layer = {site.layer: attended[site.name] for site in sites}
    both = []
    for which in (0, 1):
        stacked = np.stack([by_layer[n][which].float().numpy() for n in selection.layers])
        # Rows are segments, and persons within them where they go their own ways.
        split = stacked.reshape(len(stacked), k, -1, *stacked.shape[2:])
        chosen = split[:, [int(s) - 1 for s in segments]][:, :, [int(m) - 1 for m in persons]]
        both.append(np.moveaxis(chosen, 0, 2)[..., [h - 1 for h in selection.heads], :, :])
    return both[0], both[1]
