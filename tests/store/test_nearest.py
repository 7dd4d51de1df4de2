from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

from tests.stores import make_catalogue, make_sites, softmax_maps
from tssan_viz.cli import app
from tssan_viz.errors import UserError
from tssan_viz.store import nearest, open_store
from tssan_viz.store.upkeep import remove
from tssan_viz.store.verification import verify

FRAMES, ROWS = 6, 1200
SITES = make_sites(1, 2, FRAMES)
CATALOGUE = make_catalogue(("put on jacket", "reading"))


def record(path, first, rows, code="float16"):
    """Store maps of two videos a subject; return those of the second head."""
    maps = softmax_maps(np.random.default_rng(first), (rows, 2, FRAMES, FRAMES))
    maps = maps.astype(np.float16)
    numbers = np.arange(first, first + rows)
    with open_store(path, create=True).writer(
        "a", sites=SITES, catalogue=CATALOGUE, code=code
    ) as writer:
        columns = {"sample": [f"v{n}" for n in numbers], "label": numbers % 2}
        writer.add({**columns, "subject": numbers // 2}, {SITES[0].name: maps})
    return maps[:, 1].astype(np.float64).reshape(rows, -1)


def by_sklearn(maps, questions, k):
    found = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(maps)
    distance, positions = found.kneighbors(questions)
    return positions, 1 - distance


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """Return a store whose second head has an index that does not find everything."""
    path = tmp_path_factory.mktemp("nearest") / "store"
    maps = record(path, 0, ROWS)
    store = open_store(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_RECALL_SOUGHT", 0.6)
        patch.setattr(nearest, "_LIST", 40)
        made = store.index(layer=1, head=2)
    return store, maps, made.described


@pytest.mark.parametrize("code", ["float16", "compact", "precise"])
def test_every_map_is_compared_as_scikit_learn_does(tmp_path, monkeypatch, code):
    monkeypatch.setattr(nearest, "_PART_BYTES", 7 * 4 * FRAMES**2)
    record(tmp_path / "s", 0, 50, code)
    store = open_store(tmp_path / "s")
    stored = store.select(head=2).maps().values.astype(np.float64).reshape(50, -1)
    question = softmax_maps(np.random.default_rng(9), (1, FRAMES, FRAMES))[0]
    positions, similarity = by_sklearn(stored, question.reshape(1, -1), 60 % 50)
    found = store.nearest(question, layer=1, head=2, k=10)
    assert found["sample"].tolist() == [f"v{n}" for n in positions[0]]
    np.testing.assert_allclose(found["similarity"], similarity[0], atol=1e-6)
    assert found.attrs == {"exact": True, "recall": 1}
    assert len(store.nearest(question, layer=1, head=2, k=100)) == 50


def test_the_recall_that_is_stated_is_the_recall_that_is_measured(indexed):
    store, maps, described = indexed
    assert 0.5 < described.recall < 1
    rows = store.rows()
    own = np.flatnonzero(rows["row_id"].isin(described.questions))
    assert len(own) == len(described.questions) == 100
    truth, _ = by_sklearn(maps, maps[own], nearest.RECALL_OF + 1)
    shares = []
    for number, there in zip(own, truth, strict=True):
        question = maps[number].reshape(FRAMES, FRAMES)
        found = store.nearest(question, layer=1, head=2, k=11, exact=False)
        assert found.attrs == {"exact": False, "recall": described.recall}
        seen = set(found["sample"]) - {f"v{number}"}
        shares.append(len(seen & {f"v{n}" for n in there} - {f"v{number}"}) / nearest.RECALL_OF)
    assert np.mean(shares) == pytest.approx(described.recall, abs=1e-12)


def test_what_an_index_finds_is_compared_with_the_stored_maps(indexed):
    store, maps, _ = indexed
    question = maps[7].reshape(FRAMES, FRAMES)
    found = store.nearest(question, layer=1, head=2, k=5, exact=False)
    numbers = found["sample"].str.removeprefix("v").astype(int)
    cosine = maps[numbers] @ maps[7] / np.linalg.norm(maps[numbers], axis=1)
    np.testing.assert_allclose(found["similarity"], cosine / np.linalg.norm(maps[7]), atol=1e-6)
    assert found["sample"][0] == "v7"
    assert found["similarity"].is_monotonic_decreasing


def test_few_maps_are_all_compared_and_many_by_the_index(indexed, monkeypatch):
    store, maps, _ = indexed
    question = maps[7].reshape(FRAMES, FRAMES)
    assert store.nearest(question, layer=1, head=2).attrs["exact"]
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 1000)
    assert not store.nearest(question, layer=1, head=2).attrs["exact"]
    assert store.nearest(question, layer=1, head=2, exact=True).attrs["exact"]
    # No index of these: every map is compared.
    assert store.nearest(question, layer=1, head=1).attrs["exact"]
    some = store.nearest(question, layer=1, head=2, where="subject > 1", k=3)
    assert some.attrs["exact"]
    assert (some["subject"] > 1).all()


def test_an_index_that_is_not_there_or_of_other_rows_is_said(indexed):
    store, maps, _ = indexed
    question = maps[7].reshape(FRAMES, FRAMES)
    with pytest.raises(UserError, match=r"no index of run 'a', layer 1, head 1; .*--head 1"):
        store.nearest(question, layer=1, head=1, exact=False)
    with pytest.raises(UserError, match="is of other rows"):
        store.nearest(question, layer=1, head=2, where="subject > 1", exact=False)
    with pytest.raises(UserError, match="need no index"):
        store.index(layer=1, head=2, where="subject > 500")


def test_rows_that_came_since_are_compared_beside_the_index(tmp_path):
    record(tmp_path / "s", 0, ROWS)
    store = open_store(tmp_path / "s")
    store.index(layer=1, head=2)
    later = record(tmp_path / "s", ROWS, 30)
    question = later[4].reshape(FRAMES, FRAMES)
    found = store.nearest(question, layer=1, head=2, k=3, exact=False)
    assert found["sample"][0] == f"v{ROWS + 4}"
    assert verify(store).damaged == []
    remove(store, "a")
    assert not list((tmp_path / "s" / "nearest").glob("*/*"))


def test_an_index_that_is_stopped_leaves_nothing(tmp_path):
    record(tmp_path / "s", 0, ROWS)
    store = open_store(tmp_path / "s")

    def stop(what, done, total):
        if what == "measuring the recall":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.index(layer=1, head=2, progress=stop)
    assert [p.name for p in (tmp_path / "s" / "nearest" / "a").iterdir()] == [".lock"]


def ask(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command_leaves_the_video_itself_out_and_says_how_it_was_found(indexed, tmp_path):
    store, maps, described = indexed
    at = ("--layer", 1, "--head", 2, "--store", store.url)
    said = ask("nearest", "v7", *at, "-k", 2)
    assert said.exit_code == 0, said.output
    truth, _ = by_sklearn(maps, maps[[7]], 3)
    assert [line.split()[1] for line in said.output.splitlines() if " v" in line] == [
        f"v{n}" for n in truth[0, 1:]
    ]
    assert "each of 1,200 maps was compared" in said.output
    said = ask("nearest", "v7", *at, "--index")
    assert f"{described.recall:.1%} of the ten nearest" in said.output
    np.save(tmp_path / "map.npy", maps[7].reshape(FRAMES, FRAMES))
    said = ask("nearest", tmp_path / "map.npy", *at, "-k", 1)
    assert "1.0000" in said.output
    assert " v7 " in said.output


def test_the_command_makes_an_index_and_prints_its_recall(tmp_path):
    record(tmp_path / "s", 0, ROWS)
    said = ask("index", "--layer", 1, "--head", 1, "--store", tmp_path / "s")
    assert said.exit_code == 0, said.output
    assert "index of 1,200 maps of layer 1, head 1" in said.output
    assert "of the ten nearest" in said.output


def test_the_command_says_what_it_cannot_use(indexed, tmp_path):
    store, _, _ = indexed
    at = ("--layer", 1, "--head", 2, "--store", store.url)
    (tmp_path / "no.npy").write_bytes(b"?")
    for sample, reason in (
        ("v70000", "no sample"),
        (tmp_path / "no.npy", "cannot be read as a map"),
        (tmp_path / "gone.npy", "cannot be read as a map"),
    ):
        said = ask("nearest", sample, *at)
        assert isinstance(said.exception, UserError)
        assert reason in str(said.exception)
