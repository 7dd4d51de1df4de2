"""The command `tssan-viz prepare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tssan_viz.cli.common import console, counting_bar, err_console
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan.dataset import SkeletonDataset
    from tssan.skeletons.topology import Topology

AUTO, SYNTHETIC = "auto", "synthetic"

RECIPES = {
    "utd-mhad": "utd-mhad",
    "nw-ucla": "nw-ucla",
    "ntu60": "t1_ts-san-v2",
    "ntu120": "ntu120_ts-san-v2",
    "kinetics-openpose18": "t2_ts-san-v2-kinetics",
    SYNTHETIC: "demo",
}
SMALL_RECIPE = "utd-mhad"  # for data that no recipe is made for: the small network
LISTED = 10  # files that were left out are named up to so many


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="What it is: auto, utd-mhad, nw-ucla, ntu60, ntu120, ntu-rgbd (either of these "
            "two, as the files are), kinetics-openpose18, pyskl, ctr-gcn, plain or synthetic.",
            show_default=False,
        ),
    ],
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
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many files are read at once. Default: all cores.", show_default=False
        ),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            help="plain only: what the joints are, by a known name or a .yaml or .json file.",
            show_default=False,
        ),
    ] = None,
    keep_noise: Annotated[
        bool,
        typer.Option(
            "--keep-noise",
            help="ntu60 and ntu120 only: let bodies that are seen too shortly, or are too wide to "
            "be a person, act too.",
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

    Nothing is unpacked, and `--out` appears only when it is complete; after an interruption the
    same command goes on where it stopped. Exact copies among the sequences are flagged, and no
    protocol tests on a copy of what it was trained on, unless its name says so.

        tssan-viz prepare auto      whatever-it-is --out data

        tssan-viz prepare utd-mhad  Skeleton.zip --out utd

        tssan-viz prepare nw-ucla   all_sqe.zip  --out nw-ucla

        tssan-viz prepare ntu60     nturgbd_skeletons_s001_to_s017.zip --out ntu60

        tssan-viz prepare kinetics-openpose18 kinetics-skeleton.tar --out kinetics

        tssan-viz prepare pyskl     ntu60_3danno.pkl --out ntu60

        tssan-viz prepare synthetic --subjects 12 --out made-up

    **Your own skeletons** fit as `plain`: one `.npz` or Parquet file with an entry or column each.

    * `joints`: numbers (n, t, v, c), or (n, m, t, v, c), for n sequences of m persons, t frames,
    v joints, c = 2 or 3 coordinates. Sequences of unlike length: (l, v, c), the frames of each
    person of each sequence in turn, with `frames`; in Parquet lists (t, v, c) or (m, t, v, c).

    * `label`: (n,) numbers from 0, with `class_names` (Parquet: `class_name`); or names.

    * `topology`: kinect-v2-25, openpose-18, … or a file that lists `joints: [pelvis, head, …]` and
    `parents: {head: pelvis, …}`, and if you like `sides`, `centre`, `spine`, `hips`, `shoulders`.

    * If you like: `frames`, `persons`, `sample`, `subject`, `camera`, `setup`, `replication`,
    `split` (train, val, test), `present`, `score`, `units` (m, image), `fps`, `name`.

    With NumPy: `np.savez("mine.npz", joints=x, label=y, subject=who, topology="kinect-v2-25")`,
    then `tssan-viz prepare plain mine.npz --out mine`.
    """
    if dataset == SYNTHETIC:
        if source is not None:
            raise UserError(f"synthetic skeletons are made, not read from {source}; leave it out")
        _refuse_topology(dataset, topology)
        _report(prepare_synthetic(out, subjects=subjects or 12, seed=seed or 0))
        return
    name, source = _named(dataset, source, out)
    if subjects is not None or seed is not None:
        raise UserError(f"--subjects and --seed are for synthetic skeletons, not for {name}")
    if name != "plain":
        _refuse_topology(name, topology)
    if keep_noise and not name.startswith("ntu"):
        raise UserError(f"--keep-noise is for raw NTU RGB+D; {name} has no noise to leave out")
    try:
        _read(name, source, out, skip_bad, processes, topology, denoise=not keep_noise)
    except KeyboardInterrupt:
        from tssan.preparing import kept_folder

        kept = kept_folder(out).exists()
        err_console.print(
            "interrupted: "
            + ("the same command goes on where it stopped" if kept else f"{out} was not written"),
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None


def _refuse_topology(dataset: str, topology: str | None) -> None:
    if topology is not None:
        raise UserError(f"--topology is for plain data; {dataset} knows its joints")


def _named(dataset: str, source: Path | None, out: Path) -> tuple[str, Path]:
    """Return the format and what to read of it, having looked at it if that was asked for."""
    from tssan.skeletons.formats import find_format
    from tssan.skeletons.recognise import recognise

    if dataset == AUTO:
        if source is None:
            raise UserError(
                "auto needs something to look at: a folder or a file, as in "
                f"`tssan-viz prepare auto Skeleton.zip --out {out}`"
            )
        known = recognise(source)
        _say(f"{known.source} is {known.format}: {known.why}")
        return known.format, known.source
    fits = find_format(dataset)
    if source is None:
        raise UserError(
            f"{dataset} needs the files to read: the archive or its folder, as in "
            f"`tssan-viz prepare {dataset} {fits.example} --out {out}`"
        )
    return dataset, source


def _read(
    name: str,
    source: Path,
    out: Path,
    skip_bad: bool,
    processes: int | None,
    topology: str | None,
    denoise: bool,
) -> None:
    from tssan.preparing import BadFile, prepare_annotations, prepare_files
    from tssan.skeletons.annotations import Annotations
    from tssan.skeletons.formats import open_source

    opened = open_source(name, source, topology=_topology(topology), denoise=denoise)
    remarks = opened.remarks if isinstance(opened, Annotations) else ()
    total = len(opened) if isinstance(opened, Annotations) else len(opened.files)
    with counting_bar() as progress:
        task = progress.add_task(f"reading {escape(source.name)}", total=total)

        def advance(read: int) -> None:
            progress.advance(task, read)

        try:
            if isinstance(opened, Annotations):
                prepared = prepare_annotations(opened, out, skip_bad=skip_bad, advance=advance)
            else:
                prepared = prepare_files(
                    opened.files,
                    opened.read,
                    out,
                    name=opened.name,
                    classes=opened.classes,
                    protocols=opened.protocols,
                    skipped=opened.skipped,
                    skip_bad=skip_bad,
                    processes=processes,
                    advance=advance,
                )
        except BadFile as error:
            raise UserError(f"{error}\n(--skip-bad leaves such files out)") from None
    _report(prepared, remarks)


def _topology(given: str | None) -> Topology | None:
    from tssan.skeletons.topology import find_topology

    return None if given is None else find_topology(given)


def prepare_synthetic(out: Path, *, subjects: int, seed: int) -> SkeletonDataset:
    """Make synthetic skeleton videos of all classes, seen by three cameras, and prepare them."""
    from tssan.dataset import prepare as prepare_dataset
    from tssan.skeletons import classes, protocols
    from tssan.skeletons.synthetic import generate

    people, cameras, replications = range(1, subjects + 1), (1, 2, 3), (1, 2)
    number = subjects * len(classes.SYNTHETIC) * len(cameras) * len(replications)
    sequences = generate(people, cameras=cameras, replications=replications, seed=seed)
    with counting_bar() as progress:
        return prepare_dataset(
            progress.track(sequences, number, description=f"letting {subjects} people act"),
            out,
            name=SYNTHETIC,
            classes=classes.SYNTHETIC,
            protocols=protocols.first_half_trains(people),
        )


def _say(text: str = "") -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _report(prepared: SkeletonDataset, remarks: tuple[str, ...] = ()) -> None:
    """Say what there is now, what was left out or is missing, and what to do next."""
    from tssan.skeletons.completeness import check_sizes

    index = prepared.index
    people = index["subject"].nunique()
    subjects = f"{people} subjects" if people else "subjects not known"
    _say(
        f"{prepared.path}: {len(prepared):,} sequences of {prepared.name}, "
        f"{index['class_name'].nunique()} classes, {subjects}, "
        f"{int(index['frames'].sum()):,} frames"
    )
    copies = int(index["duplicate_of"].notna().sum())
    if copies:
        _say(f"{copies} are exact copies of another sequence (duplicate_of in index.parquet)")
    if prepared.skipped:
        files = "file was" if len(prepared.skipped) == 1 else "files were"
        _say(f"{len(prepared.skipped):,} {files} left out (listed in dataset.json):")
        for left_out in prepared.skipped[:LISTED]:
            _say(f"  {left_out.reason}")
        if len(prepared.skipped) > LISTED:
            _say(f"  … and {len(prepared.skipped) - LISTED:,} more")
    rules = [prepared.protocol(name) for name in prepared.protocols]
    for remark in (*remarks, *check_sizes(prepared.name, rules, index)):
        _say(f"note: {remark}")

    if prepared.protocols:
        _print_protocols(prepared, copies)
        _say(f"next: {_next_command(prepared)}")
    else:
        _say("no protocol of this data set leaves sequences for training and for testing")


def _print_protocols(prepared: SkeletonDataset, copies: int) -> None:
    table = Table("protocol", box=None, pad_edge=False)
    for heading in ("train", "test"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for position, name in enumerate(prepared.protocols):
        split, rule = prepared.split(name), prepared.protocol(name)
        remarks = [] if position else ["the default"]
        if copies and rule.leaves_out_copies:
            left_out_copies = prepared.index[rule.by].isin(rule.test).sum() - len(split.test)
            if left_out_copies:
                remarks.append(f"without {left_out_copies} copies of training sequences")
        table.add_row(name, f"{len(split.train):,}", f"{len(split.test):,}", "; ".join(remarks))
    console.print(table)


def _next_command(prepared: SkeletonDataset) -> str:
    """Return the command that trains on it: with its recipe, or with the small network."""
    folder = shlex.quote(str(prepared.path))
    if prepared.name in RECIPES:
        return f"tssan-viz train {RECIPES[prepared.name]} --data {folder} --out run"
    words = [f"tssan-viz train {SMALL_RECIPE} --data {folder} --out run"]
    words.append(f"--protocol {prepared.protocol().name}")
    skeleton, flat = prepared.topology, prepared.joints.shape[2] == 2
    settings = {
        "persons": 2 if prepared.index["persons"].max() > 1 else None,
        "align": "none" if flat or skeleton.shoulders is None else None,
        "scale": "none" if skeleton.shoulders is None or skeleton.hips is None else None,
        "rotate": 0 if flat else None,
    }
    words += [f"--set clips.{key}={value}" for key, value in settings.items() if value is not None]
    return " ".join(words)
