"""A run is a folder; these are its files, and how they are written.

* `recipe.yaml`: the recipe as it was run
* `metrics.csv`: one line per epoch
* `resume.ckpt`: everything needed to go on; there only while the run is unfinished
* `checkpoint.safetensors`: the weights
* `results.json`: accuracy, seed, time, data set; written last: where it is, all is
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tssan.errors import DataError

RECIPE, METRICS, RESUME = "recipe.yaml", "metrics.csv", "resume.ckpt"
CHECKPOINT, RESULTS = "checkpoint.safetensors", "results.json"


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


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, and move it there whole."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    os.replace(part, path)


def sha256(path: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
