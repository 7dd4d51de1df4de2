"""Dash's background callbacks, run by `tssan_dash.work` in a process of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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
        self._store = str(Path(store.url).absolute())
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
        )
        assert process.stdin is not None
        with process.stdin:
            json.dump(job, process.stdin)
        return process.pid

    def answer(self, key: str) -> Any:
        """Return what was worked out under a key, None where there is nothing (any more)."""
        return self._answers.get(key) if re.fullmatch("[0-9a-f]{32}", key) else None
