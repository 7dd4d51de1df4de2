"""A run is a folder; these are its files, and how they are written.

* `recipe.yaml`: the recipe as it was run
* `metrics.csv`: one line per epoch; `curves.png` and `curves.pdf` draw them
* `resume.ckpt`: everything needed to go on; there only while the run is unfinished
* `checkpoint.safetensors`: the weights
* `evaluations.json`: when the test part was looked at with this run, and how often
* `results.json`: accuracy, seed, time, data set, versions; written last: where it is, all is
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tssan.errors import DataError

RECIPE, METRICS, RESUME = "recipe.yaml", "metrics.csv", "resume.ckpt"
CHECKPOINT, RESULTS = "checkpoint.safetensors", "results.json"
EVALUATIONS, CURVES = "evaluations.json", "curves"


class Interrupted(KeyboardInterrupt):
    """Training was stopped at the keyboard; the message says how to go on."""


def refuse_to_overwrite(out: Path, resume: bool) -> None:
    """Refuse to write over a run, and to go on with one that is not there."""
    if (out / RESULTS).exists():
        raise DataError(
            f"{out} holds a finished run already; give another --out, or remove that folder first"
        )
    if resume and not (out / RECIPE).exists():
        raise DataError(f"{out} holds no unfinished run to go on with; leave --resume out")
    if not resume and (out / RESUME).exists():
        raise DataError(
            f"{out} holds an unfinished run; --resume goes on with it, "
            "or remove that folder to start anew"
        )
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; --out must be a folder")
    # What a training leaves that was stopped in its first epoch may be written over, nothing else.
    begun = (RECIPE, METRICS, EVALUATIONS, ".")
    foreign = sorted(path.name for path in out.glob("*") if not path.name.startswith(begun))
    if foreign and not resume:
        raise DataError(
            f"{out} holds {foreign[0]}, which no training begun there wrote; "
            "expected a new or empty folder"
        )


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keep other trainings out of the folder; the lock does not outlive its process."""
    import fcntl  # POSIX

    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{out} is being written by another training; wait for it, or give another --out"
            ) from None
        yield
    finally:
        os.close(folder)


def read_evaluations(out: Path) -> list[dict[str, Any]]:
    """Return when the test part was looked at with a run, oldest first.

    Each entry has `at` (time), `by` (train, selection or evaluate), `times` (how often: selection
    on the test part looks once an epoch) and `accuracy`.
    """
    try:
        entries: list[dict[str, Any]] = json.loads((out / EVALUATIONS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DataError(f"{out / EVALUATIONS}: not JSON: {error}") from None
    return entries


def note_evaluation(out: Path, by: str, *, times: int, accuracy: float | None) -> None:
    """Add one line to the record of looks at the test part."""
    entry = {"at": now(), "by": by, "times": times, "accuracy": accuracy}
    entries = [*read_evaluations(out), entry]
    write_text(out / EVALUATIONS, json.dumps(entries, indent=2) + "\n")


def differences(there: Any, wanted: Any) -> str | None:
    """Say where two plain values part, down to the first key; None where they are equal."""
    if there == wanted:
        return None
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        for key in wanted:
            inner = differences(there.get(key), wanted[key])
            if inner is not None:
                return f"{key}{'.' if isinstance(wanted[key], Mapping) else ': '}{inner}"
    return f"{there!r} there, {wanted!r} now"


def now() -> str:
    """Return the time, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, and move it there whole."""
    part = path.with_name(f".{path.name}.part")
    with nothing_left(part):
        write(part)
        os.replace(part, path)


@contextmanager
def nothing_left(part: Path) -> Iterator[None]:
    """Take an unfinished file away at the end, if it is still there."""
    try:
        yield
    finally:
        with suppress(OSError):  # what a read-only folder says even of files that are not there
            part.unlink()


def cannot_write(out: Path, error: OSError) -> DataError:
    """Return what to tell of a folder that is not to be written, or of a disk that is full."""
    return DataError(f"cannot write {out}: {error.strerror or error}")


def sha256(path: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
