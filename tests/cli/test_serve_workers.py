"""`tssan-viz serve --workers`: several processes, of which any may get the next request."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.cli.test_serve import MAIN, run
from tests.stores import make_store
from tssan_viz.store import AttentionStore

pytest.importorskip("dash")
pytest.importorskip("gunicorn")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow

WISH = {"run": "generated", "query": {"class": "reading"}, "place": {}, "nonce": "1"}


@dataclass
class Served:
    process: subprocess.Popen[str]
    address: str

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    @property
    def jobs(self) -> list[psutil.Process]:
        return [child for worker in self.workers for child in worker.children()]

    def get(self, path: str) -> str:
        # Each time a connection of its own, which any worker may take.
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read().decode()

    def page(self) -> str:
        """Return the mark that a page has, with which it asks for background work."""
        config = re.search(r'id="_dash-config"[^>]*>(.*?)</script>', self.get("/"), re.S)
        assert config
        return json.loads(config[1])["end_id"]

    def call(self, output: str, inputs: dict[str, Any], **query: str) -> dict[str, Any]:
        def targets(values: dict[str, Any]) -> list[dict[str, Any]]:
            split = [(name.rsplit(".", 1), value) for name, value in values.items()]
            return [{"id": i, "property": p, "value": value} for (i, p), value in split]

        (target,) = targets({output: None})
        body = {"output": output, "outputs": target, "inputs": targets(inputs), "state": []}
        body["changedPropIds"] = list(inputs)
        request = urllib.request.Request(
            f"{self.address}/_dash-update-component?{urlencode(query)}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
            return json.loads(data) if data else {}

    def begin_and_hold(self, mark: str) -> dict[str, str]:
        """Begin a job that stands still, whatever else the machine does meanwhile."""
        for _ in range(9):
            handles = self.begin(mark)
            with suppress(psutil.NoSuchProcess):
                job = psutil.Process(int(handles["job"].split("~")[0]))  # the rest is a signature
                job.suspend()
                until(lambda job=job: job.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
                if job.status() == psutil.STATUS_STOPPED:
                    return handles
            until(lambda: not self.jobs)
        raise AssertionError("every job was done before it could be held")

    def begin(self, mark: str) -> dict[str, str]:
        begun = self.call("compare-found.data", {"compare-wish.data": WISH}, endId=mark)
        return {"endId": mark, "cacheKey": begun["cacheKey"], "job": begun["job"]}


def until(true: Any) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = make_store(tmp_path_factory.mktemp("workers") / "attention-store")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", store.url, "--port", "0", "--workers", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A terminal's Ctrl-C goes to all processes of a group.
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found
    served = Served(process, found[0])
    served.get("/")
    yield served
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_every_worker_answers_and_none_has_torch(served: Served) -> None:
    assert len(served.workers) == 3
    before = {worker.pid: sum(worker.cpu_times()[:2]) for worker in served.workers}

    def all_have_worked() -> bool:
        assert "tssan-viz" in served.get("/")
        served.get("/_dash-layout")
        return all(sum(w.cpu_times()[:2]) > before[w.pid] for w in served.workers)

    until(all_have_worked)
    for worker in served.workers:
        maps = Path(f"/proc/{worker.pid}/maps")
        if maps.exists():
            assert "libtorch" not in maps.read_text()


def test_any_worker_reports_and_gives_what_one_has_begun(served: Served) -> None:
    handles = served.begin(served.page())
    answers: list[dict[str, Any]] = []

    def done() -> bool:
        answers.append(served.call("compare-found.data", {"compare-wish.data": WISH}, **handles))
        return "response" in answers[-1]

    until(done)
    found = answers[-1]["response"]["compare-found"]["data"]
    assert set(found) == {"key"}
    until(lambda: not served.jobs)


def test_any_worker_ends_what_one_has_begun(served: Served) -> None:
    for _ in range(3):
        mark = served.page()
        handles = served.begin_and_hold(mark)
        served.call(
            "compare-cancel.id",
            {"compare-cancel.n_clicks": 1},
            endId=mark,
            cancelJob=handles["job"],
        )
        until(lambda: not served.jobs)
        # Nothing more comes, and no error.
        answer = served.call("compare-found.data", {"compare-wish.data": WISH}, **handles)
        assert answer == {}


def test_a_job_that_was_killed_is_said(served: Served) -> None:
    handles = served.begin_and_hold(served.page())
    for job in served.jobs:
        job.kill()
    until(lambda: not served.jobs)
    answer = served.call("compare-found.data", {"compare-wish.data": WISH}, **handles)
    assert "ended by the system" in answer["response"]["compare-found"]["data"]["error"]


def test_nobody_else_ends_or_reads_it(served: Served) -> None:
    handles = served.begin_and_hold(served.page())
    stranger = served.page()
    served.call(
        "compare-cancel.id",
        {"compare-cancel.n_clicks": 1},
        endId=stranger,
        cancelJob=handles["job"],
    )
    (job,) = served.jobs
    stolen = served.call(
        "compare-found.data", {"compare-wish.data": WISH}, **handles | {"endId": stranger}
    )
    assert "response" not in stolen
    job.resume()
    until(lambda: not served.jobs)


def test_a_worker_that_dies_is_replaced(served: Served) -> None:
    victim = served.workers[0]
    victim.kill()
    until(lambda: len(served.workers) == 3 and victim.pid not in [w.pid for w in served.workers])
    assert "tssan-viz" in served.get("/")


def test_a_port_in_use_is_said_also_with_workers(
    served: Served, small_store: AttentionStore
) -> None:
    port = served.address.rsplit(":", 1)[1]
    done = run(small_store.url, "--port", port, "--workers", "2")
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_store_is_said_also_with_workers(tmp_path: Path) -> None:
    done = run("nowhere", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "tssan-viz demo" in done.stderr


# The last one: it ends the server.
def test_ctrl_c_ends_all_of_it_quietly(served: Served) -> None:
    served.begin_and_hold(served.page())
    everybody = [*served.workers, *served.jobs]
    assert len(everybody) == 4
    for job in served.jobs:
        job.resume()
    os.killpg(served.process.pid, signal.SIGINT)
    out, err = served.process.communicate(timeout=120)
    assert served.process.returncode == 0
    # Of the killed worker the server speaks, of its own end not.
    lines = [line for line in err.splitlines() if "was sent SIGKILL" not in line]
    assert (out, lines) == ("", [])
    until(lambda: not any(process.is_running() for process in everybody))
