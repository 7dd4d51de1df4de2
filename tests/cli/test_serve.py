"""The command `tssan-viz serve`, as it is run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tssan_viz.store import AttentionStore

pytest.importorskip("dash")

MAIN = "from tssan_viz.cli import main; main()"
MAIN_THEN_TORCH = """
import sys
from tssan_viz.cli import main
try:
    main()
finally:
    print("torch", "torch" in sys.modules)
"""


def run(*arguments: str, code: str = MAIN, cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "TSSAN_STORE"}
    return subprocess.run(
        [sys.executable, "-c", code, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=environment | {"COLUMNS": "300"},
    )


def test_it_serves_this_machine_prints_where_and_ends_quietly(small_store: AttentionStore) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN_THEN_TORCH, "serve", small_store.url, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        assert small_store.url in line
        with urllib.request.urlopen(found[0], timeout=60) as page:
            assert page.status == 200
        with urllib.request.urlopen(f"{found[0]}/_dash-layout", timeout=60) as layout:
            assert layout.status == 200
        other = socket.gethostbyname(socket.gethostname())
        if not other.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((other, int(found[1])), timeout=5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0
    assert err == ""
    assert out.split() == ["torch", "False"]


def test_a_missing_store_says_what_makes_one(tmp_path: Path) -> None:
    done = run("nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "tssan-viz demo" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(cwd=tmp_path).returncode == 2


def test_a_port_in_use_is_said(small_store: AttentionStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(small_store.url, "--port", str(port))
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_is_not_ours_is_said(small_store: AttentionStore) -> None:
    done = run(small_store.url, "--host", "no.such.name.invalid", "--trust-proxy")
    assert done.returncode == 2
    assert "no.such.name.invalid" in done.stderr


def test_without_the_extra_it_says_what_to_install(small_store: AttentionStore) -> None:
    done = run(small_store.url, code=f"import sys; sys.modules['dash'] = None; {MAIN}")
    assert done.returncode == 2
    assert "pip install 'tssan-viz[dash]'" in done.stderr


def test_another_address_needs_a_token_or_a_proxy(small_store: AttentionStore) -> None:
    done = run(small_store.url, "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "--token" in done.stderr
    assert "--trust-proxy" in done.stderr
    short = run(small_store.url, "--token", "secret")
    assert short.returncode == 2
    assert "can be guessed" in short.stderr
