"""Long work of the pages: in a process of its own, with progress, and it can be ended.

A worker of the server has threads that a fork would leave half-done, so that the process is begun
afresh; ``python -m tssan_dash.work FOLDER KEY`` is it. All workers share one folder of the system's
temporary files, in which jobs and answers lie; it belongs to the user who serves the store, and
nobody else can look into it. Who began a job holds the other end of its input open: a job ends when
that is closed, so that none goes on for a server that is no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diskcache

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore

log = logging.getLogger(__name__)

# Answers are forgotten, the oldest first, when they take more than this.
_MOST_BYTES = 512 << 20
_MOST_SECONDS = 7 * 24 * 3600


def folder_of(store: AttentionStore) -> Path:
    """Return the folder of a store's jobs and answers, made where there is none.

    Raises
    ------
    UserError
        Somebody else has put something else in its place.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    name = hashlib.sha256(str(store.path.absolute()).encode()).hexdigest()[:16]
    base = Path(tempfile.gettempdir()) / f"tssan-viz-{user}"
    for folder in (base, base / name):
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if hasattr(os, "getuid") and (
            not stat.S_ISDIR(about.st_mode) or about.st_uid != user or about.st_mode & 0o077
        ):
            raise UserError(
                f"{folder} is not a folder that is yours alone: remove it, or set TMPDIR"
            )
    return base / name


def answers(folder: Path) -> diskcache.Cache:
    """Open what was worked out, by a key of the question and of what the run had then."""
    return diskcache.Cache(str(folder / "answers"), size_limit=_MOST_BYTES)


def answer_key(question: dict[str, Any], rows: Any) -> str:
    """Return the name of an answer: what was asked, and of which rows."""
    numbers = rows.column("row_id").to_numpy() if rows.num_rows else b""
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode())
    digest.update(numbers)
    if rows.num_rows and "checksum" in rows.column_names:
        digest.update(rows.column("checksum").to_numpy())
    return digest.hexdigest()[:32]


def _main(folder: str, key: str, progress_key: str) -> None:
    import importlib

    from tssan_viz import open_store

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    jobs = diskcache.Cache(str(Path(folder) / "jobs"))
    told = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > 0.2 or done == total:
            told = time.monotonic()
            jobs.set(progress_key, [round(100 * done / max(total, 1)), f"{what} …"], expire=3600)

    function = getattr(importlib.import_module(job["module"]), job["function"])
    known = answers(Path(folder))

    def keep(name: str, value: Any) -> None:
        known.set(name, value, expire=_MOST_SECONDS)

    try:
        result = function(open_store(job["store"]), report, keep, *job["arguments"])
    except UserError as error:
        result = {"error": str(error)}
    except Exception as error:
        log.exception("A job of the dashboard failed.")
        words = f"{type(error).__name__}: {error}. The terminal that serves it says where."
        result = {"error": words}
    jobs.set(key, result, expire=3600)


def _end_with_the_server() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
