"""Dash's background callbacks, run by `tssan_dash.work` in a process of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import diskcache
from dash import DiskcacheManager

from tssan_dash import work

if TYPE_CHECKING:
    from tssan_viz.store import AttentionStore


class Jobs(DiskcacheManager):
    """Runs functions ``f(store, report, keep, *arguments)`` of modules, each in its own process.

    Parameters
    ----------
    store
        What they are given.
    """

    def __init__(self, store: AttentionStore) -> None:
        self._store = str(store.path.absolute())
        self._folder = work.folder_of(store)
        # Answers hold what was worked out, by a key of the question and of what the run had then.
        self._answers = work.answers(self._folder)
        super().__init__(diskcache.Cache(str(self._folder / "jobs")))

    def make_job_fn(self, fn: Callable[..., Any], progress: Any, key: str | None = None) -> Any:
        """Return what `call_job_fn` runs: the function itself, which that process imports."""
        return fn

    def call_job_fn(self, key: str, job_fn: Callable[..., Any], args: Any, context: Any) -> int:
        """Begin a job; returns the number of its process."""
        job = {
            "store": self._store,
            "module": job_fn.__module__,
            "function": job_fn.__name__,
            "arguments": list(args.values()) if isinstance(args, dict) else args,
        }
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                work.__name__,
                str(self._folder),
                key,
                self._make_progress_key(key),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            # Ctrl-C is for the server; this ends with it (see `work`).
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        # Waits for its end, whoever ends it; until then the pipe stays open.
        threading.Thread(target=process.wait, daemon=True).start()
        return process.pid

    def terminate_job(self, job: int | str | None) -> None:
        """End a job, whichever worker began it."""
        if job is not None:
            self.handle.set(f"ended {job}", True, expire=3600)
        super().terminate_job(job)

    def get_result(self, key: str, job: int | str | None) -> Any:
        """Return what a job found; an error in words if it is gone without a word."""
        gone = job is not None and not self.job_running(job)
        result = super().get_result(key, job)
        if result is self.UNDEFINED and gone and not self.handle.get(f"ended {job}"):
            return {"error": "The work was ended by the system, maybe for want of memory."}
        return result

    def answer(self, key: str) -> Any:
        """Return what was worked out under a key, None where there is nothing (any more)."""
        return self._answers.get(key) if re.fullmatch("[0-9a-f]{32}", key) else None
