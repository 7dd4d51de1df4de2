"""`tssan-viz view FILE --run RUN`: one file and a trained network, straight to the page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tssan.dataset import prepare
from tssan.recipe import load_recipe, override
from tssan.skeletons.classes import SYNTHETIC
from tssan.skeletons.protocols import first_half_trains
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.synthetic import generate
from tssan.training import TrainedRun, train

import tssan_viz
from tests.cli.test_record import run_command
from tests.cli.test_view import run
from tssan_viz.cli.record import record_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, Path]:
    """A run of one epoch, and one of its test videos as a file."""
    folder = tmp_path_factory.mktemp("file")
    people = range(1, 5)
    skeletons = prepare(
        generate(people, cameras=[1], replications=[1], seed=0),
        folder / "skeletons",
        name="synthetic",
        classes=SYNTHETIC,
        protocols=first_half_trains(people),
    )
    recipe = override(load_recipe("demo"), ["training.epochs=1", "network.width=16"])
    made = train(recipe, skeletons, folder / "run", seed=0, progress=False)
    write(skeletons[int(skeletons.split().test[3])], folder / "one.npz")
    record_run(made, skeletons, tssan_viz.open_store(folder / "store", create=True), progress=False)
    return made, folder


def write(sequence: SkeletonSequence, path: Path, copies: int = 1) -> None:
    np.savez(
        path,
        joints=np.stack([sequence.joints] * copies),
        present=np.stack([sequence.present] * copies),
        label=np.array([sequence.class_name] * copies),
        sample=np.array([f"{sequence.sample}{'+' * copy}" for copy in range(copies)]),
        topology=sequence.topology.name,
        units=sequence.units,
        fps=sequence.fps,
    )


def shown(page: Path) -> dict:
    found = re.search(
        r'<script type="application/json" id="payload">(.*?)</script>', page.read_text()
    )
    assert found is not None
    return json.loads(found[1])


def test_the_page_shows_what_a_store_would(trained, tmp_path: Path) -> None:
    made, folder = trained
    result = run(folder / "one.npz", "--run", made.path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "view.html" in result.stdout
    direct = shown(tmp_path / "view.html")
    sample = direct["manifest"]["sample"]
    assert run(sample, "--store", folder / "store", "-o", "s.html", cwd=tmp_path).returncode == 0
    stored = shown(tmp_path / "s.html")
    for name in ("sample", "class_name", "predicted_name", "correct", "maps", "labels", "seconds"):
        assert direct["manifest"][name] == stored["manifest"][name], name
    weights = [
        np.frombuffer(base64.b64decode(one["maps"]), "<f2").astype(float)
        for one in (direct, stored)
    ]
    # A batch of one and a batch of many are multiplied in another order.
    np.testing.assert_allclose(*weights, atol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.html", "view.html"]


def test_what_cannot_be_shown_is_said(trained, tmp_path: Path) -> None:
    made, folder = trained
    one = folder / "one.npz"
    (tmp_path / "words.txt").write_text("no skeleton")
    (sequence,) = generate([1], cameras=[1], replications=[1], classes=["reading"])
    write(sequence, tmp_path / "two.npz", copies=2)
    for arguments, words in (
        ((one,), "which network is to look at it?"),
        ((one, "--run", tmp_path), "no trained run"),
        ((one, "--run", made.path, "--store", folder / "store"), "needs no store"),
        ((tmp_path / "words.txt", "--run", made.path), "no skeleton data set that is known"),
        ((tmp_path / "two.npz", "--run", made.path), "holds 2 sequences"),
        (("gone.skeleton", "--run", made.path), "there is no file gone.skeleton"),
    ):
        result = run(*arguments, cwd=tmp_path)
        assert result.returncode == 2, (arguments, result.stderr)
        assert words in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "view.html").exists()


def test_a_raw_file_of_a_class_unknown_to_the_network(trained, ntu_files, tmp_path: Path) -> None:
    made, _ = trained
    file = next(path for path in ntu_files if "A050" in path.name)
    result = run(file, "--run", made.path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    manifest = shown(tmp_path / "view.html")["manifest"]
    assert manifest["sample"] == file.stem
    assert manifest["class_name"] not in made.classes
    assert manifest["predicted_name"] in made.classes
    assert manifest["correct"] is False


def test_queries_and_keys_of_a_file(trained, tmp_path: Path) -> None:
    made, folder = trained
    arguments = ("--run", made.path, "--kind", "query-key")
    result = run(folder / "one.npz", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    given = shown(tmp_path / "view.html")
    manifest = given["manifest"]
    # That their softmax gives the maps was checked before the page was written.
    assert manifest["view"] == "query-key"
    assert manifest["query_vectors"]["shape"][:-1] == manifest["maps"]["shape"][:-1]
    store = ("--store", folder / "store", "--kind", "query-key")
    result = run(manifest["sample"], *store, cwd=tmp_path)
    assert result.returncode == 2
    assert "takes the file of a video" in result.stderr


def test_recorded_queries_and_keys_are_shown_of_a_sample(
    monkeypatch, capsys, trained, tmp_path: Path
) -> None:
    made, folder = trained
    where = ("--run", made.path, "--data", folder / "skeletons", "--store", tmp_path / "store")
    for count in (24, 0):
        code, out, err = run_command(monkeypatch, capsys, "record", *where, "--queries")
        assert code == 0, err
        found = re.search(r"queries and keys of (\d+) videos", out)
        assert found is not None
        assert (int(found[1]) > 0) == (count > 0), "what is kept is not computed again"
    store = tssan_viz.open_store(tmp_path / "store")
    payload = tssan_viz.views.sample_payload(store.select(), view="query-key")
    assert payload.manifest["query_vectors"]["shape"][:-1] == payload.manifest["maps"]["shape"][:-1]
    sample = payload.manifest["sample"]
    arguments = (sample, "--store", tmp_path / "store", "-o", tmp_path / "view.html")
    code, _, err = run_command(monkeypatch, capsys, "view", *arguments)
    assert code == 0, err
    manifest = shown(tmp_path / "view.html")["manifest"]
    assert manifest["view"] == "explore"
    assert manifest["explained"] == payload.manifest["explained"]
    direct = ("view", folder / "one.npz", "--run", made.path, "-o", tmp_path / "file.html")
    assert run_command(monkeypatch, capsys, *direct)[0] == 0
    assert "query_vectors" in shown(tmp_path / "file.html")["manifest"]
