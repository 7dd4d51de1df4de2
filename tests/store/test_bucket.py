"""A store in a bucket: against a server that speaks S3, which the tests start."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.fs
import pytest
from typer.testing import CliRunner

import tssan_viz
from tests.store.record_until_killed import SITES, maps_of
from tests.stores import make_catalogue, make_store
from tssan_viz.cli import app
from tssan_viz.errors import UserError
from tssan_viz.store import StoreNotFound, StoreWriteError, claims, open_store, opened, places
from tssan_viz.store.places import BucketPath, place
from tssan_viz.store.upkeep import compact, merge, remove
from tssan_viz.store.verification import verify

CATALOGUE = make_catalogue(("put on jacket", "reading"))
URL = "s3://bucket/lab/store"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path) -> pyarrow.fs.S3FileSystem:
    """An empty bucket, named to the environment as a person would, and looked at by pyarrow."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reset = urllib.request.Request(f"{server}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    urllib.request.urlopen(urllib.request.Request(f"{server}/bucket", method="PUT")).close()
    return pyarrow.fs.S3FileSystem(endpoint_override=server, region="us-east-1")


def files(bucket: pyarrow.fs.S3FileSystem, under: str) -> list[str]:
    selector = pyarrow.fs.FileSelector(f"bucket/lab/store/{under}", allow_not_found=True)
    return [info.path for info in bucket.get_file_info(selector) if info.is_file and info.size]


def flip(bucket: pyarrow.fs.S3FileSystem, path: str) -> None:
    with bucket.open_input_stream(path) as file:
        data = bytearray(file.read())
    data[len(data) // 3] ^= 1
    with bucket.open_output_stream(path) as file:
        file.write(bytes(data))


def add(writer, number: int) -> None:
    maps = maps_of(number)
    peaks = {name: value.astype(np.float32).max(-1).mean(-1) for name, value in maps.items()}
    writer.add({"sample": [f"v{number}"], "label": [number % 2]}, maps, {"peak": peaks})
    writer.flush()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("s3://bucket/lab/store/", "s3://bucket/lab/store"),
        ("s3:/bucket/lab", "s3://bucket/lab"),
        ("s3:folder", "s3:folder"),
        ("file:///data/store", "/data/store"),
    ],
)
def test_places_are_named_as_people_name_them(text, named):
    assert str(place(text)) == named
    assert isinstance(place(text), BucketPath) == named.startswith("s3://")
    assert pickle.loads(pickle.dumps(place(text))) == place(text)
    assert str(place(text) / "rows" / "a.lance") == f"{named}/rows/a.lance"
    assert str((place(text) / "maps" / "a").relative_to(place(text))) == "maps/a"


def test_a_store_in_a_bucket_answers_as_one_in_a_folder_does(bucket, tmp_path):
    local = make_store(tmp_path / "local", planted="put on jacket")
    make_store(place(URL), planted="put on jacket")
    store = open_store(URL)
    assert store.url == URL
    pd.testing.assert_frame_equal(store.rows(), local.rows())
    assert store.catalogue() == local.catalogue()
    there, here = (s.select(class_name="wear jacket", subject=[1, 2]) for s in (store, local))
    assert str(there) == str(here)
    np.testing.assert_array_equal(there.maps().values, here.maps().values)
    np.testing.assert_array_equal(
        store.select().mean(by=["class_name"]).values, local.select().mean(by=["class_name"]).values
    )
    question = "select class_name, head, avg(entropy) e from maps group by all order by all"
    pd.testing.assert_frame_equal(store.sql(question), local.sql(question))
    sample = there.rows()["sample"].iloc[0]
    np.testing.assert_array_equal(store.sample(sample).poses, local.sample(sample).poses)
    near = [s.nearest(here.maps().values[0, 0, 0], layer=1, head=1, k=3) for s in (store, local)]
    assert near[0]["row_id"].tolist() == near[1]["row_id"].tolist()
    assert not verify(store).damaged
    assert verify(store).maps == verify(local).maps == 128 * 2 * 4
    assert store.notes == []


@pytest.mark.slow
def test_comparisons_keep_their_sums_on_this_machine(bucket, tmp_path):
    local = make_store(tmp_path / "local", planted="put on jacket")
    make_store(place(URL), planted="put on jacket")
    store = open_store(URL)
    found, expected = (
        tssan_viz.compare(s, class_name="put on jacket", permutations=99) for s in (store, local)
    )
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert not files(bucket, "cells")
    (kept,) = (tmp_path / "cache" / "tssan-viz").iterdir()
    sums = sorted(kept.rglob("*-units.npy"))
    assert sums
    # Rows that were recorded since change the cells that they belong to, and no stale one is used.
    again = tssan_viz.compare(open_store(URL), class_name="put on jacket", permutations=99)
    pd.testing.assert_frame_equal(again.table, expected.table)
    assert sorted(kept.rglob("*-units.npy")) == sums
    remove(store, "generated")
    assert not list(kept.rglob("*-units.npy"))


def test_recording_goes_on_where_it_stopped_and_a_reader_sees_it(bucket, monkeypatch):
    store = open_store(URL, create=True)
    reader = open_store(URL)
    assert reader.run_names() == []
    with store.writer("a", sites=SITES, catalogue=CATALOGUE) as writer:
        for number in range(3):
            add(writer, number)
        assert writer.rows_acknowledged == 3
        # What this process committed is there at once, what others did within a second.
        assert len(reader.rows("a")) == 3
    with open_store(URL).writer("a", sites=SITES, catalogue=CATALOGUE) as writer:
        for number in range(5):
            add(writer, number)
        assert writer.rows_skipped == 3
    selection = reader.select(run="a")
    assert selection.rows()["sample"].tolist() == [f"v{n}" for n in range(5)]
    np.testing.assert_array_equal(
        selection.maps().values[4, 0], maps_of(4)["blocks.0.attend"][0].astype(np.float32)
    )
    assert not verify(reader).damaged


@pytest.mark.slow
def test_what_another_process_committed_is_seen_within_a_second(bucket):
    store = open_store(URL, create=True)
    assert store.run_names() == []
    script = (
        "from tests.store.test_bucket import *\n"
        f"with open_store({URL!r}).writer('a', sites=SITES, catalogue=CATALOGUE) as writer:\n"
        "    add(writer, 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)
    until = time.monotonic() + 5
    while not store.run_names() and time.monotonic() < until:
        time.sleep(0.05)
    assert store.run_names() == ["a"]


def test_a_second_writer_is_refused_and_told_why(bucket):
    store = open_store(URL, create=True)
    first = store.writer("a", sites=SITES, catalogue=CATALOGUE)
    for act in (
        lambda: store.writer("b", sites=SITES, catalogue=CATALOGUE),
        lambda: store.writer("a", sites=SITES, catalogue=CATALOGUE, rank=1),
        lambda: compact(store),
        lambda: remove(store, "a"),
    ):
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* one writer at a time"):
            act()
    add(first, 0)
    first.close()
    store.writer("b", sites=SITES, catalogue=CATALOGUE).close()
    assert not files(bucket, ".writers")


def test_of_writers_that_come_at_once_at_most_one_goes_on(bucket, monkeypatch):
    monkeypatch.setattr(claims, "_ATTEMPTS", 1)
    open_store(URL, create=True)
    won: list[claims.WriterClaim] = []
    refused: list[UserError] = []
    ready = threading.Barrier(6)

    def come() -> None:
        ready.wait()
        try:
            won.append(claims.WriterClaim(BucketPath("/bucket/lab/store")))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) <= 1
    assert len(won) + len(refused) == 6
    for claim in won:
        claim.release()
    claims.WriterClaim(BucketPath("/bucket/lab/store")).release()


@pytest.mark.slow
def test_a_writer_that_was_killed_keeps_nobody_out(bucket):
    open_store(URL, create=True)
    script = (
        "import time\n"
        "from tests.store.test_bucket import *\n"
        f"writer = open_store({URL!r}).writer('a', sites=SITES, catalogue=CATALOGUE)\n"
        "add(writer, 0)\n"
        "print('added', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "added\n"
    with pytest.raises(UserError, match=f"process {process.pid}"):
        open_store(URL).writer("a", sites=SITES, catalogue=CATALOGUE)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open_store(URL).writer("a", sites=SITES, catalogue=CATALOGUE) as writer:
        add(writer, 0)
        add(writer, 1)
        assert (writer.rows_skipped, writer.rows_acknowledged) == (1, 1)


@pytest.mark.slow
def test_a_writer_elsewhere_that_gives_no_sign_of_life_is_passed_over(bucket, monkeypatch):
    store = open_store(URL, create=True)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(claims, "_machine", lambda: "another")
        silent = store.writer("a", sites=SITES, catalogue=CATALOGUE)
    add(silent, 0)
    silent.add({"sample": ["v1"], "label": [1]}, maps_of(1))
    monkeypatch.setattr(claims, "_DEAD_AFTER_NS", -1)
    second = open_store(URL).writer("a", sites=SITES, catalogue=CATALOGUE)
    # It was halted, not dead: what it still had is not written behind the other's back.
    with pytest.raises(StoreWriteError, match="taken for dead"):
        silent.flush()
    add(second, 1)
    second.close()
    assert open_store(URL).rows("a")["sample"].tolist() == ["v0", "v1"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["maps/generated/16x16/data", "rows/_versions"])
def test_flipped_bits_are_noticed(bucket, where):
    make_store(place(URL), subjects=2, cameras=(1,), replications=(1,))
    target = [path for path in files(bucket, where) if not path.endswith(".json")][-1]
    flip(bucket, target)
    found = verify(open_store(URL))
    assert any(f"s3://{target}" in said or "maps/generated" in said for said in found.damaged)


@pytest.mark.slow
def test_merge_and_compact_and_remove_work_in_a_bucket(bucket, tmp_path):
    source = make_store(tmp_path / "source", subjects=2, cameras=(1,))
    into = open_store(URL, create=True)
    merged = merge([source], into)
    assert (merged.rows, merged.damaged) == (16, [])
    assert merge([into], open_store(tmp_path / "back", create=True)).rows == 16
    compact(into)
    assert not verify(into).damaged
    assert remove(into, "generated") > 0
    assert into.run_names() == []
    assert not files(bucket, "maps/generated/16x16/data")


@pytest.fixture
def run_command():
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(words))
        if isinstance(result.exception, UserError):
            return 2, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result.exit_code, result.output

    return run


@pytest.mark.slow
def test_commands_take_a_bucket(bucket, run_command, tmp_path):
    make_store(place(URL), planted="put on jacket")
    assert run_command("info", URL)[1].startswith(f"{URL}  ")
    assert "in the bucket" in run_command("info", URL)[1]
    assert "is sound: 128 rows" in run_command("verify", URL)[1].replace("\n", " ")
    question = "select count(*) n from maps"
    code, said = run_command("query", "--store", URL, "--format", "json", question)
    assert (code, json.loads(said)) == (0, [{"n": 128 * 8}])
    code, said = run_command("compare", "--store", URL, "--class", "put on jacket")
    assert code == 0
    assert "resemble each other across subjects" in said.replace("\n", " ")
    out = tmp_path / "run.npz"
    assert run_command("export", "--store", URL, "--out", str(out))[0] == 0
    assert run_command("import", str(out), "--out", "s3://bucket/other")[0] == 0
    assert run_command("merge", "s3://bucket/other", "--out", "s3://bucket/third")[0] == 0
    assert len(open_store("s3://bucket/third").rows()) == 128
    code, _ = run_command("rm", "--store", "s3://bucket/third", "--run", "generated", "--yes")
    assert code == 0
    assert run_command("compact", "s3://bucket/third")[0] == 0


def closed_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_what_is_wrong_with_a_bucket_is_said(bucket, monkeypatch):
    with pytest.raises(StoreNotFound, match="no attention store at s3://bucket/none"):
        open_store("s3://bucket/none")
    for create in (False, True):
        with pytest.raises(UserError, match="there is no bucket 'nobody'"):
            open_store("s3://nobody/store", create=create)
    for url, said in (("s3://", "no bucket is named"), ("gs://bucket/store", "s3://BUCKET/NAME")):
        with pytest.raises(UserError, match=said):
            open_store(url)
    with bucket.open_output_stream("bucket/full/thesis.tex") as file:
        file.write(b"words")
    with pytest.raises(UserError, match="not empty"):
        open_store("s3://bucket/full", create=True)
    endpoint = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for create in (False, True):
        with pytest.raises(UserError, match=rf"cannot be reached at {endpoint}.*AWS_ENDPOINT"):
            open_store(URL, create=create)


@pytest.mark.slow
def test_a_server_that_says_nothing_is_given_up(bucket, monkeypatch):
    monkeypatch.setattr(places, "_REQUEST_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(UserError, match=f"cannot be reached at {endpoint}"):
            open_store(URL)


@pytest.mark.slow
def test_a_server_that_goes_away_is_an_error_and_no_traceback(bucket, monkeypatch):
    store = make_store(place(URL), subjects=2, cameras=(1,), replications=(1,))
    writer = store.writer("b", sites=SITES, catalogue=CATALOGUE)
    writer.add({"sample": ["v0"], "label": [0]}, maps_of(0))
    monkeypatch.setattr(opened, "_TRUSTED", 0.0)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(UserError, match="cannot be reached"):
        store.rows()
    with pytest.raises(StoreWriteError) as caught:
        writer.flush()
    assert caught.value.may_retry
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    writer.flush()
    assert writer.rows_acknowledged == 1
    writer.close()
    assert len(store.rows("b")) == 1
