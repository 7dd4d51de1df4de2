"""The built wheel does everything outside the checkout."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Install the wheel into a folder that comes before the checkout on the path."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site, {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "COLUMNS": "120"}


def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"tssan", "tssan_viz", "tssan_dash", "tssan_viz-0.1.0.dist-info"}
    assert "tssan/recipes/demo.yaml" in names
    assert "tssan_viz/views/static/tssan-views.mjs" in names
    assert not [name for name in names if "node_modules" in name]


def test_demo_train_record_compare_and_serve_outside_the_checkout(
    installed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    site, env = installed

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, str(site / "bin/tssan-viz"), *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import tssan, tssan_viz, tssan_dash; "
         "print(tssan.__file__, tssan_viz.__file__, tssan_dash.__file__)"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.count(str(site)) == 3

    run("demo")
    answer = json.loads(run("compare", "--class", "put on jacket", "--json"))
    assert answer["class"]["name"] == "put on jacket"
    run("train", "demo", "--data", "demo/skeletons", "--out", "run", "--epochs", "1")
    run("record", "--run", "run", "--data", "demo/skeletons", "--out", "other-store")
    run("compare", "--class", "reading", "--store", "other-store", "--permutations", "200")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(site / "bin/tssan-viz"), "serve", "--port", str(port)],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(480):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as reply:
                    assert reply.status == 200
                    break
            except OSError:
                assert server.poll() is None, "the server ended by itself"
                time.sleep(0.25)
        else:
            pytest.fail("the server did not answer within two minutes")
    finally:
        server.terminate()
        server.wait(timeout=120)
