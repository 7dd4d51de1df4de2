"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tssan_viz.errors import UserError


def check_target(path: str | os.PathLike[str], option: str) -> Path:
    """Return where a file can be written, before the work for it is done.

    Raises
    ------
    UserError
        There is no such folder, or the path is one.
    """
    target = Path(path).expanduser()
    if not target.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {target.parent}")
    if target.is_dir():
        raise UserError(f"{option} {path}: this is a folder; name a file in it")
    return target


def write_text(target: Path, text: str, option: str) -> None:
    """Write a file beside its name and rename it, so that no half of it is ever seen.

    Raises
    ------
    UserError
        It cannot be written.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    except OSError as error:
        raise UserError(f"{option} {target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # a read-only folder says no even where nothing is there
            beside.unlink()
