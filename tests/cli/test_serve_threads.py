"""The server that takes the place of several processes on Windows: waitress, in threads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.stores import make_store

pytest.importorskip("dash")
pytest.importorskip("waitress")

# What `serve --workers` does where processes cannot share a socket.
SERVING = """
import json, signal, sys
from tssan_dash.app import listen
from tssan_dash.workers import serve_with_threads

signal.signal(signal.SIGINT, signal.default_int_handler)
listening = listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
serve_with_threads(listening, 2, json.loads(sys.argv[1]))
print("ended", flush=True)
"""


def test_waitress_answers_several_at_once_and_ends_quietly(tmp_path: Path) -> None:
    store = make_store(tmp_path / "attention-store", subjects=3, cameras=(1,))
    served = {"store": store.url, "local": True, "token": None}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVING, json.dumps(served)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        found: list[tuple[int, bool]] = []

        def get(path: str) -> None:
            with urllib.request.urlopen(address + path, timeout=60) as answer:
                found.append((answer.status, len(answer.read()) > 500))

        pages = ["/", "/explore", "/_dash-layout", "/_dash-dependencies"] * 3
        threads = [threading.Thread(target=get, args=(page,)) for page in pages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [(200, True)] * len(pages)
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.splitlines() == ["ended"]
    assert "Traceback" not in errors
