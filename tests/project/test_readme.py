"""The README's commands are run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.skeletons import written

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(
    r"(?:<!-- tested: (?P<tag>[^>]+?) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)```", re.DOTALL
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(README)]
TSSAN_VIZ = str(Path(sys.executable).with_name("tssan-viz"))


def commands(tag: str) -> list[list[str]]:
    """Return the words of every command in the blocks with this tag."""
    bodies = [
        block["body"] for block in BLOCKS if block["tag"] == tag and block["language"] == "bash"
    ]
    lines = [line for body in bodies for line in body.splitlines() if line.strip()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str], folder: Path) -> str:
    assert words[0] == "tssan-viz", words
    done = subprocess.run(
        [TSSAN_VIZ, *words[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_block_of_commands_is_tested_somewhere() -> None:
    tags = {block["tag"] for block in BLOCKS if block["language"] == "bash"}
    real = {"utd-mhad", "nw-ucla", "ntu60", "own skeletons"}
    assert tags == {"make", "after the demo", "a bucket"} | real
    assert [words[:2] for words in commands("make")] == [["make", "demo"], ["make", "test"]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """Run the demo once in an empty folder, as `make demo` does."""
    folder = tmp_path_factory.mktemp("demo")
    started = time.perf_counter()
    printed = run(["tssan-viz", "demo"], folder)
    return folder, printed, time.perf_counter() - started


def test_the_demo_learns_and_leaves_what_it_says(demo: tuple[Path, str, float]) -> None:
    folder, printed, _ = demo
    results = json.loads((folder / "demo/ts-san/results.json").read_text())
    assert results["test_accuracy"] >= 0.90
    assert "done in" in printed
    assert (folder / "demo/head-view.html").stat().st_size > 10_000
    assert (folder / "demo/figure5.pdf").read_bytes().startswith(b"%PDF")
    answer = json.loads(
        run(shlex.split('tssan-viz compare --class "put on jacket" --json'), folder)
    )
    assert len(answer["subjects"]) >= 6


def test_the_demo_run_again_repeats_nothing(demo: tuple[Path, str, float]) -> None:
    folder, _, first = demo
    before = (folder / "demo/ts-san/checkpoint.safetensors").read_bytes()
    started = time.perf_counter()
    assert "is there already" in run(["tssan-viz", "demo"], folder)
    assert (folder / "demo/ts-san/checkpoint.safetensors").read_bytes() == before
    assert time.perf_counter() - started < first


@pytest.mark.parametrize("words", commands("after the demo"), ids=shlex.join)
def test_commands_after_the_demo(demo: tuple[Path, str, float], words: list[str]) -> None:
    folder, _, _ = demo
    if words[1] == "serve":
        serve_answers(words, folder)
        return
    printed = run(words, folder)
    assert printed.strip()
    for word in words:
        if word.endswith((".html", ".pdf", ".onnx", ".parquet")):
            assert (folder / word).stat().st_size > 1000


def test_a_bucket(
    demo: tuple[Path, str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/lab", method="PUT")).close()
        named = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
        for name, value in named.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (merge, compare) = commands("a bucket")
        run(merge, demo[0])
        assert "put on jacket (A014) against all other classes" in run(compare, demo[0])
    finally:
        server.stop()


def serve_answers(words: list[str], folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [TSSAN_VIZ, *words[1:], "--port", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(480):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as reply:
                    assert reply.status == 200
                    return
            except OSError:
                assert server.poll() is None, "the server ended by itself"
                time.sleep(0.25)
        pytest.fail("the server did not answer within two minutes")
    finally:
        server.terminate()
        server.wait(timeout=120)


def test_python_after_the_demo(demo: tuple[Path, str, float]) -> None:
    folder, _, _ = demo
    (code,) = [
        b["body"] for b in BLOCKS if b["language"] == "python" and b["tag"] == "after the demo"
    ]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    assert (folder / "figure5.svg").stat().st_size > 1000


def test_any_model(tmp_path: Path) -> None:
    (code,) = [b["body"] for b in BLOCKS if b["language"] == "python" and b["tag"] == "any model"]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_own_skeletons(tmp_path: Path) -> None:
    (code,) = [
        b["body"] for b in BLOCKS if b["language"] == "python" and b["tag"] == "own skeletons"
    ]
    rng = np.random.default_rng(0)
    label, subject = np.arange(12) % 3, 1 + np.arange(12) // 3
    given = {"joints": rng.normal(size=(12, 20, 25, 3)), "label": label, "subject": subject}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(code, given)
    finally:
        os.chdir(before)
    (words,) = commands("own skeletons")
    assert "12 sequences" in run(words, tmp_path)


# The archive is made up and the networks are made small; every other word is the README's.
SMALL = [
    "training.epochs=1",
    "training.batch_size=4",
    "training.validation=0.3",
    "network.width=16",
]


@pytest.mark.slow
def test_ntu_rgbd(tmp_path: Path) -> None:
    videos = {
        f"S{1 + s // 4:03}C{c:03}P{s:03}R001A{a:03}.skeleton": written.ntu_rgbd(
            [[(s, pose)] for pose in written.poses(20, 25, 100 * s + 10 * c + a)]
        )
        for s in (1, 2, 3, 4, 6, 8)
        for c in (1, 2, 3)
        for a in (11, 14)
    }
    prepare, *others = commands("ntu60")
    written.archive(tmp_path / prepare[3], videos)
    assert "36 sequences" in run(prepare, tmp_path)
    for words in others:
        printed = run([*words, *(f"--set={setting}" for setting in SMALL)], tmp_path)
        assert "%" in printed or "paper" in printed


def real_data_path(tag: str, archive: Path, folder: Path) -> tuple[dict, str]:
    """Run the commands of a real data set; return what the training and the comparison gave."""
    printed = ""
    for words in commands(tag):
        printed = run(
            [str(archive) if word.startswith("PATH/TO/") else word for word in words], folder
        )
    train = next(words for words in commands(tag) if words[1] == "train")
    results = folder / train[train.index("--out") + 1] / "results.json"
    return json.loads(results.read_text()), printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_data_utd_mhad(utd_mhad_zip: Path, tmp_path: Path) -> None:
    results, printed = real_data_path("utd-mhad", utd_mhad_zip, tmp_path)
    assert results["test_accuracy"] >= 0.92
    assert "draw X" in printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_data_nw_ucla(nw_ucla_zip: Path, tmp_path: Path) -> None:
    results, printed = real_data_path("nw-ucla", nw_ucla_zip, tmp_path)
    assert results["test_accuracy"] >= 0.75
    assert "donning" in printed
