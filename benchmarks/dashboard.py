"""Measure the dashboard over a store of a whole test set: first paint, clicks, memory, many users.

A store of generated maps (16,560 videos of 3 segments, 4 layers × 8 heads of 32 × 32, with poses
and measures: 3.8 GB, half a minute) is made in a temporary folder, or in --store, where the next
call finds it. `tssan-viz serve --workers` serves it on this machine. Printed are

* the time to the first useful paint of the overview, of the server's second visitor (Chromium),
* the server's and the browser's time for a click that shows another video,
* how alike a class's maps are in all layers and heads, from kept cells: the server's time until
  the page Compare shows it, of a worker that was not asked before and of one that was; and the
  whole comparison with 10,000 permutations,
* the memory of the largest worker,
* under load: 50 users (--users), each a click that shows a video every 2 s for 60 s (--seconds),
  with all requests that a browser makes of it; failures, the 95th percentile from the click to
  the last byte, and the processor time of all workers for a click.

    python benchmarks/dashboard.py --store /tmp/whole-test-set
    python benchmarks/dashboard.py --videos 1200 --users 5 --seconds 10
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from tssan_viz import compare_class
from tssan_viz.store import (
    AttentionStore,
    Catalogue,
    ClassEntry,
    Site,
    SkeletonInfo,
    StoredSample,
    open_store,
)

SEGMENTS, LAYERS, HEADS, FRAMES = 3, 4, 8, 32
CLASSES, SUBJECTS, CAMERAS, JOINTS = 60, 20, 3, 25
BATCH = 60
RUN = "generated"
MEGABYTE = 1e6

# Resolves at the end of the frame in which an element that was waited for is there.
_PAINTED = """selector => new Promise((done, fail) => {
  setTimeout(() => fail(new Error(selector + " does not come")), 30000);
  const look = () => {
    const ready = [...document.querySelectorAll(selector)].some((e) => e.offsetHeight > 0);
    if (!ready) { setTimeout(look, 4); return; }
    requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0));
  };
  look();
})"""


def generate(path: Path, videos: int) -> AttentionStore:
    """Write the store: maps of which some heads are sharp and some spread out, as trained ones."""
    rng = np.random.default_rng(0)
    sharpness = np.geomspace(0.5, 6, HEADS).astype(np.float32)[:, None, None]
    rows = BATCH * SEGMENTS
    shape = (rows, LAYERS, HEADS, FRAMES, FRAMES)
    scores = np.exp(rng.normal(size=shape).astype(np.float32) * sharpness)
    pool = scores / scores.sum(-1, keepdims=True)
    entropy = -(pool * np.log(pool)).sum(-1).mean(-1) / np.log(FRAMES)
    peak = pool.max(-1).mean(-1)
    maps = pool.astype(np.float16)
    poses = rng.normal(size=(BATCH, 1, SEGMENTS, FRAMES, JOINTS, 3)).astype(np.float32)
    frames = np.arange(SEGMENTS * FRAMES, dtype=np.float32).reshape(SEGMENTS, FRAMES)
    sites = [Site(f"blocks.{n}.attend", n + 1, HEADS, FRAMES, FRAMES) for n in range(LAYERS)]
    bones = tuple((n, n + 1) for n in range(JOINTS - 1))
    names = tuple(f"joint {n}" for n in range(JOINTS))
    skeleton = SkeletonInfo("chain", names, bones, ("centre",) * JOINTS, "m", head_joint=0)
    classes = tuple(ClassEntry(c, f"class {c + 1}", f"A{c + 1:03d}") for c in range(CLASSES))
    store = open_store(path, create=True)
    catalogue = Catalogue("generated", classes, skeleton, 30.0)
    with store.writer(RUN, sites=sites, catalogue=catalogue) as writer:
        for start in range(0, videos, BATCH):
            n = np.arange(start, min(start + BATCH, videos))
            label, subject = n % CLASSES, n // CLASSES % SUBJECTS + 1
            camera = n // (CLASSES * SUBJECTS) % CAMERAS + 1
            turn = n // (CLASSES * SUBJECTS * CAMERAS) + 1
            right = rng.random(len(n)) < 0.9
            samples = [
                f"S001C{c:03d}P{s:03d}R{r:03d}A{a + 1:03d}"
                for a, s, c, r in zip(label, subject, camera, turn, strict=True)
            ]
            of_videos = {
                "sample": np.array(samples),
                "label": label,
                "class_name": np.array([classes[a].name for a in label]),
                "class_code": np.array([classes[a].code for a in label]),
                "subject": subject,
                "camera": camera,
                "replication": turn,
                "predicted": np.where(right, label, (label + 1) % CLASSES),
                "correct": right,
                "confidence": rng.uniform(0.3, 1, len(n)),
            }
            of_rows = {name: v.repeat(SEGMENTS).tolist() for name, v in of_videos.items()}
            of_rows["segment"] = np.tile(np.arange(1, SEGMENTS + 1), len(n)).tolist()
            writer.add_samples(
                [
                    StoredSample(
                        name,
                        int(label[i]),
                        classes[label[i]].name,
                        classes[label[i]].code,
                        int(subject[i]),
                        int(camera[i]),
                        frames=frames,
                        seconds=frames / 30,
                        poses=poses[i],
                        present=np.ones((1, SEGMENTS), bool),
                    )
                    for i, name in enumerate(samples)
                ]
            )
            chosen = (np.arange(len(n) * SEGMENTS) + SEGMENTS * int(rng.integers(BATCH))) % rows
            writer.add(
                {**of_rows, "split": "test", "phase": "inference"},
                {site.name: maps[chosen, m] for m, site in enumerate(sites)},
                {
                    name: {site.name: values[chosen, m] for m, site in enumerate(sites)}
                    for name, values in (("entropy", entropy), ("peak", peak))
                },
            )
    return store


class Server:
    """The command that serves, in processes of its own."""

    def __init__(self, store: str, workers: int) -> None:
        command = "from tssan_viz.cli import main; main()"
        options = ["--workers", str(workers), "--port", "0"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", store, *options],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
        )
        assert self._process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", self._process.stdout.readline())
        assert found, "the server did not begin"
        self.address = found[0]
        self._children = psutil.Process(self._process.pid)

    def _answering(self) -> list[psutil.Process]:
        return self._children.children() or [self._children]

    def processor_seconds(self) -> float:
        """Return what the workers have used."""
        return sum(sum(p.cpu_times()[:2]) for p in self._answering())

    def memory(self) -> float:
        """Return the megabytes of the largest worker, shared pages among them."""
        return max(p.memory_info().rss for p in self._answering()) / MEGABYTE

    def end(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(timeout=30) == 0


@contextmanager
def serving(store: str, workers: int) -> Iterator[Server]:
    server = Server(store, workers)
    try:
        yield server
    finally:
        server.end()


class User:
    """Does what a browser does of a click that shows a video, on one connection."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
        self._page = self.get("/_dash-dependencies")
        self.callbacks = {one["output"]: one for one in json.loads(self._page)}

    def get(self, path: str) -> bytes:
        """Return the body of an answer; an AssertionError with its words if it is an error."""
        self._connection.request("GET", path)
        return self._body(path)

    def _body(self, what: str) -> bytes:
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status in (200, 204), f"{what}: {answer.status} {body[:200]!r}"
        return body

    def call(self, part: str, values: dict[str, Any], *, changed: str) -> dict[str, Any]:
        """Call the callback with `part` in the name of what it writes, and `changed` as input."""
        output, callback = next(
            (name, one)
            for name, one in self.callbacks.items()
            if part in name
            and not one["clientside_function"]
            and changed in [f"{i['id']}.{i['property']}" for i in one["inputs"]]
        )
        names = output.strip(".").split("...")
        outputs = [dict(zip(("id", "property"), n.rsplit(".", 1), strict=True)) for n in names]

        def given(targets: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [t | {"value": values.get(f"{t['id']}.{t['property']}")} for t in targets]

        body = {
            "output": output,
            "outputs": outputs if output.startswith("..") else outputs[0],
            "inputs": given(callback["inputs"]),
            "state": given(callback["state"]),
            "changedPropIds": [changed],
        }
        path = "/_dash-update-component"
        data = json.dumps(body)
        self._connection.request("POST", path, data, {"Content-Type": "application/json"})
        found = self._body(output)
        return json.loads(found)["response"] if found else {}

    def show(self, before: str, sample: str) -> tuple[int, str]:
        """Click on a video in the table; returns the bytes of its maps and poses, and its title."""
        values = {
            "explore-row.data": sample,
            "explore-shown.data": {"run": RUN, "sample": before, "clicks": 0},
            "explore-head.state": {"layer": 1},
            "explore-view.value": "head",
            "explore-question.data": {},
        }
        shown = self.call("explore-head.values", values, changed="explore-row.data")
        buffers = shown["explore-head"]["buffers"]
        size = sum(len(self.get(url)) for url in buffers.values())
        return size, shown["explore-shown"]["data"]["sample"]


class Report:
    """Figures beside their bars."""

    def line(self, what: str, value: float, bar: float, unit: str) -> None:
        """Print a figure and whether it is within its bar."""
        met = "met" if value <= bar else "MISSED"
        print(f"{what:<58}{value:>10.1f} {unit:<4} bar {bar:>6g} {unit:<4} {met}", flush=True)


def clicks(report: Report, server: Server, samples: list[str], n: int) -> None:
    """Print the server's time for a click while nobody else is there, each of a new video."""
    user = User(server.address)
    for warm in samples[:4]:
        user.show(samples[-1], warm)
    times = []
    used = server.processor_seconds()
    for before, sample in itertools.pairwise(samples[4 : n + 5]):
        begun = time.perf_counter()
        user.show(before, sample)
        times.append(1e3 * (time.perf_counter() - begun))
    used = 1e3 * (server.processor_seconds() - used) / n
    report.line("click that shows a video, all its requests, median", np.median(times), 150, "ms")
    report.line("its processor time, alone", used, 25, "ms")


def load(report: Report, server: Server, samples: list[str], users: int, seconds: float) -> None:
    """Print what many users find."""
    rng = np.random.default_rng(1)
    everyone = [User(server.address) for _ in range(users)]
    times: list[float] = []
    failures: list[str] = []
    begun = time.perf_counter()
    used = server.processor_seconds()

    def stay(user: User, first: float, path: list[str]) -> None:
        due = begun + first
        before = samples[-1]
        for sample in path:
            if due > begun + seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            start = time.perf_counter()
            try:
                user.show(before, sample)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
                return
            times.append(1e3 * (time.perf_counter() - start))
            before = sample
            due += 2.0

    longest = int(seconds / 2) + 2
    threads = [
        threading.Thread(target=stay, args=(user, first, rng.choice(samples, longest).tolist()))
        for user, first in zip(everyone, np.linspace(0, 2, users, endpoint=False), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = 1e3 * (server.processor_seconds() - used) / max(len(times), 1)
    print(f"{users} users, a click every 2 s, {seconds:g} s: {len(times)} clicks")
    report.line("  failures", len(failures), 0, "")
    for words in failures[:3]:
        print(f"    {words}")
    report.line("  click, 95th percentile", float(np.quantile(times, 0.95)), 500, "ms")
    report.line("  processor time of the workers for a click", used, 25, "ms")


def painting(report: Report, server: Server, n: int) -> None:
    """Print what a person with a browser waits."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        first = []
        for _ in range(n):
            # A context of its own: nothing is in its cache.
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(server.address, wait_until="commit")
            first.append(page.evaluate(_PAINTED, "#overview-heads td a"))
            page.context.close()
        report.line("first useful paint of the overview, median", np.median(first[1:]), 1500, "ms")
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.goto(f"{server.address}/explore")
        ready = "#explore-head[aria-busy=false] canvas"
        page.evaluate(_PAINTED, ready)
        page.wait_for_timeout(2000)
        times = []
        for _ in range(n + 1):
            times.append(page.evaluate(_CLICK))
            page.wait_for_timeout(1500)
        report.line("from the click to the video's paint, median", np.median(times[1:]), 300, "ms")
        browser.close()


# Clicks on the next video, and waits until the head view has been mounted anew and painted.
_CLICK = """() => new Promise((done, fail) => {
  setTimeout(() => fail(new Error("the next video does not come")), 30000);
  const start = performance.now();
  const old = document.querySelector("#explore-head canvas");
  document.querySelector("#explore-next").click();
  const look = () => {
    const box = document.querySelector("#explore-head[aria-busy=false] canvas");
    if (!box || box === old || !box.offsetHeight) { setTimeout(look, 2); return; }
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
  };
  look();
})"""


def comparisons(report: Report, store: AttentionStore) -> None:
    """Print the time of a comparison of a class with all others, from sums that are kept."""
    everything = store.select(run=RUN)
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        compare_class(everything, "class 8", permutations=10_000)
        times.append(1e3 * (time.perf_counter() - begun))
    what = "comparison from cells, 10,000 permutations, median"
    report.line(what, float(np.median(times[1:])), 2000, "ms")


def similarities(report: Report, server: Server, n: int) -> None:
    """Print the time until the page Compare shows how alike a class's maps are."""
    user = User(server.address)
    times = []
    for label in range(n + 1):
        question = {"run": RUN, "query": {"class": f"class {label + 9}"}, "place": {}}
        begun = time.perf_counter()
        shown = user.call(
            "compare-result",
            {"compare-question.data": question},
            changed="compare-question.data",
        )
        times.append(1e3 * (time.perf_counter() - begun))
        assert "compare-first" in json.dumps(shown)
    print(f"similarity of a class from cells, first asked of a worker{times[0]:>12.1f} ms")
    what = "similarity of a class from cells, as shown, median"
    report.line(what, float(np.median(times[1:])), 100, "ms")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=16_560)
    parser.add_argument("--store", type=Path, help="Where the store is, or is made; it stays.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.store or Path(folder) / "store"
        if path.exists():
            store = open_store(path)
        else:
            begun = time.perf_counter()
            store = generate(path, given.videos)
            took = time.perf_counter() - begun
            print(f"{given.videos:,} videos in {took:.0f} s, {store.size() / 1e9:.2f} GB")
        samples = store.select(run=RUN).samples()["sample"].sample(frac=1, random_state=0).tolist()
        report = Report()
        with serving(str(path), given.workers) as server:
            painting(report, server, 7)
            clicks(report, server, samples, 30)
            load(report, server, samples, given.users, given.seconds)
            comparisons(report, store)
            similarities(report, server, 20)
            report.line("memory of the largest worker", server.memory(), 600, "MB")


if __name__ == "__main__":
    main()
