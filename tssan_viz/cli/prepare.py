"""The command `tssan-viz prepare`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tssan_viz.cli.common import console, err_console
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.sequence import SkeletonSequence


class Kind(StrEnum):
    """The data sets that can be prepared."""

    utd_mhad = "utd-mhad"
    nw_ucla = "nw-ucla"
    ntu_rgbd = "ntu-rgbd"
    synthetic = "synthetic"


# What their authors distribute, and the recipe that is made for it.
DISTRIBUTED = {
    Kind.utd_mhad: "Skeleton.zip",
    Kind.nw_ucla: "all_sqe.zip",
    Kind.ntu_rgbd: "nturgbd_skeletons_s001_to_s017.zip",
}
RECIPES = {
    Kind.utd_mhad: "utd-mhad",
    Kind.nw_ucla: "nw-ucla",
    Kind.ntu_rgbd: "t1_ts-san-v2",
    Kind.synthetic: "demo",
}


def prepare(
    dataset: Annotated[Kind, typer.Argument(help="Which data set.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The folder to write: new, empty, or one that this command wrote before.",
            show_default=False,
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="The archive as its authors distribute it, or the folder it was unpacked to. "
            "`synthetic` takes none.",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out files that cannot be read, and list them at the end."
        ),
    ] = False,
    subjects: Annotated[
        int | None,
        typer.Option(
            min=2, help="synthetic only: how many people act. Default: 12.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="synthetic only: other seed, other people. Default: 0.", show_default=False
        ),
    ] = None,
) -> None:
    """Read skeleton files once and write them as one folder that trains and records quickly.

    Nothing is unpacked, and `--out` appears only when it is complete. Exact copies among the
    sequences are flagged, and no protocol tests on a copy of what it was trained on, unless its
    name says so.

        tssan-viz prepare utd-mhad  Skeleton.zip --out utd

        tssan-viz prepare nw-ucla   all_sqe.zip  --out nw-ucla

        tssan-viz prepare ntu-rgbd  nturgb+d_skeletons/ --out ntu60

        tssan-viz prepare synthetic --subjects 12 --out made-up
    """
    if dataset is Kind.synthetic:
        if source is not None:
            raise UserError(f"synthetic skeletons are made, not read from {source}; leave it out")
        prepared = prepare_synthetic(out, subjects=subjects or 12, seed=seed or 0)
    else:
        if subjects is not None or seed is not None:
            raise UserError(
                f"--subjects and --seed are for synthetic skeletons, not for {dataset.value}"
            )
        if source is None:
            raise UserError(
                f"{dataset.value} needs the files to read: the archive or its folder, as in "
                f"`tssan-viz prepare {dataset.value} {DISTRIBUTED[dataset]} --out {out}`"
            )
        prepared = _read(dataset, source, out, skip_bad)
    _report(prepared, dataset)


def _read(dataset: Kind, source: Path, out: Path, skip_bad: bool) -> SkeletonDataset:
    from tssan.dataset import Skipped
    from tssan.dataset import prepare as prepare_dataset
    from tssan.errors import DataError
    from tssan.skeletons import classes, ntu_rgbd, nw_ucla, protocols, utd_mhad

    reader, actions, divisions = {
        Kind.utd_mhad: (utd_mhad, classes.UTD_MHAD, protocols.UTD_MHAD),
        Kind.nw_ucla: (nw_ucla, classes.NW_UCLA, protocols.NW_UCLA),
        Kind.ntu_rgbd: (ntu_rgbd, classes.NTU_RGBD, protocols.NTU_RGBD),
    }[dataset]
    files = reader.find_files(source)
    if dataset is Kind.ntu_rgbd:
        actions = ntu_rgbd.classes_of(file.name for file in files)
    skipped: list[Skipped] = []

    def sequences() -> Iterator[SkeletonSequence]:
        for file in progress.track(files, description=f"reading {escape(source.name)}"):
            try:
                yield reader.read_file(file.read(), file.name)
            except DataError as error:
                if not skip_bad:
                    raise DataError(f"{error}\n(--skip-bad leaves such files out)") from None
                skipped.append(Skipped(file.name, str(error)))

    with _progress() as progress:
        return prepare_dataset(
            sequences(),
            out,
            name=dataset.value,
            classes=actions,
            protocols=divisions,
            skipped=skipped,
        )


def prepare_synthetic(out: Path, *, subjects: int, seed: int) -> SkeletonDataset:
    """Make synthetic skeleton videos of all classes, seen by three cameras, and prepare them."""
    from tssan.dataset import prepare as prepare_dataset
    from tssan.skeletons import classes, protocols
    from tssan.skeletons.synthetic import generate

    people, cameras, replications = range(1, subjects + 1), (1, 2, 3), (1, 2)
    number = subjects * len(classes.SYNTHETIC) * len(cameras) * len(replications)
    sequences = generate(people, cameras=cameras, replications=replications, seed=seed)
    with _progress() as progress:
        return prepare_dataset(
            progress.track(sequences, number, description=f"letting {subjects} people act"),
            out,
            name=Kind.synthetic.value,
            classes=classes.SYNTHETIC,
            protocols=protocols.first_half_trains(people),
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
    )


def _report(prepared: SkeletonDataset, dataset: Kind) -> None:
    """Say what there is now, what was left out, and what to do next."""
    index = prepared.index

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(
        f"{prepared.path}: {len(prepared):,} sequences of {prepared.name}, "
        f"{index['class_name'].nunique()} classes, {index['subject'].nunique()} subjects, "
        f"{int(index['frames'].sum()):,} frames"
    )
    copies = int(index["duplicate_of"].notna().sum())
    if copies:
        say(f"{copies} are exact copies of another sequence (duplicate_of in index.parquet)")
    if prepared.skipped:
        files = "file was" if len(prepared.skipped) == 1 else "files were"
        say(f"{len(prepared.skipped)} {files} left out (listed in dataset.json):")
        for left_out in prepared.skipped:
            say(f"  {left_out.reason}")

    if prepared.protocols:
        table = Table("protocol", box=None, pad_edge=False)
        for heading in ("train", "test"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for position, name in enumerate(prepared.protocols):
            split, rule = prepared.split(name), prepared.protocol(name)
            remarks = [] if position else ["the default"]
            if copies and rule.leaves_out_copies:
                left_out_copies = index[rule.by].isin(rule.test).sum() - len(split.test)
                if left_out_copies:
                    remarks.append(f"without {left_out_copies} copies of training sequences")
            table.add_row(name, f"{len(split.train):,}", f"{len(split.test):,}", "; ".join(remarks))
        console.print(table)
        folder = shlex.quote(str(prepared.path))
        say(f"next: tssan-viz train {RECIPES[dataset]} --data {folder} --out run")
    else:
        say("no protocol of this data set leaves sequences for training and for testing")
