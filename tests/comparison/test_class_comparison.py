"""From a store to an answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.comparison.stores import CLASSES, every, random_maps, write
from tests.stores import make_store
from tssan_viz import compare_class
from tssan_viz.comparison.similarity import METRICS, unit_vectors
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, UnknownClass


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> AttentionStore:
    return make_store(
        tmp_path_factory.mktemp("planted") / "store", planted="put on jacket", segments=2
    )


def brute_force(
    store: AttentionStore, label: int, layer: int, head: int, metric: str = "cosine"
) -> tuple[float, float]:
    """W and B by a loop over pairs of cells, from the maps as xarray gives them."""
    maps = store.select(layer=layer, head=head).maps()
    units, _ = unit_vectors(maps.values[:, 0, 0], metric)
    rows = store.select().rows()
    found = {}
    for (s, c, k), part in rows.groupby(["subject", "label", "segment"]):
        trials = [
            np.mean([units[view.index].mean(axis=0) for _, view in trial.groupby("camera")], axis=0)
            for _, trial in part.groupby("replication")
        ]
        found[s, c, k] = np.mean(trials, axis=0)
    within, between = [], []
    segments = rows["segment"].unique()
    for s in rows["subject"].unique():
        for other in set(rows["subject"]) - {s}:
            for c in rows["label"].unique():
                value = np.mean([found[s, label, k] @ found[other, c, k] for k in segments])
                (within if c == label else between).append(value)
    return float(np.mean(within)), float(np.mean(between))


@pytest.mark.parametrize("metric", METRICS)
def test_the_table_is_the_definition(planted: AttentionStore, metric: str) -> None:
    result = compare_class(planted, "put on jacket", metric=metric, permutations=200)
    assert list(result.table.columns[:11]) == (
        ["layer", "head", "W", "B", "delta", "hedges_g", "low", "high", "p", "p_max_t", "q"]
    )
    assert result.table[["layer", "head"]].to_numpy().tolist() == [
        [layer, head] for layer in (1, 2) for head in (1, 2, 3, 4)
    ]
    for layer, head in ((2, 1), (1, 3)):
        line = result.table.set_index(["layer", "head"]).loc[(layer, head)]
        w, b = brute_force(planted, 0, layer, head, metric)
        assert line["W"] == pytest.approx(w, abs=1e-5)
        assert line["B"] == pytest.approx(b, abs=1e-5)
        assert line["delta"] == pytest.approx(line["W"] - line["B"], abs=1e-12)


def test_a_planted_class_is_found_where_it_is(planted: AttentionStore) -> None:
    result = compare_class(planted, "put on jacket")
    assert result.significant[["layer", "head"]].to_numpy().tolist() == [[2, 1]]
    line = result.table.set_index(["layer", "head"]).loc[(2, 1)]
    assert line["p_max_t"] <= 0.001
    assert line["q"] <= 0.001
    assert line["low"] > 0.1
    assert "In 1 of 8 heads" in result.summary[0]
    assert "layer 2 head 1" in result.summary[0]
    assert "8 subjects, 128 videos" in result.summary[0]
    assert "for this network" in result.summary[0]
    assert "more, on average, than they resemble maps of the 3 other classes" in result.summary[0]
    assert "10,000 random exchanges" in result.summary[-1]
    assert not any("no interval" in note for note in result.notes)
    assert result.n_class_samples == 32
    assert result.subjects == list(range(1, 9))
    for other in ("reading", "A011", 1, "1"):
        against = compare_class(planted, 0, with_class=other)
        assert against.significant[["layer", "head"]].to_numpy().tolist() == [[2, 1]]
        assert against.smallest_p == 2 / 2**8
        assert against.n_samples == 64
        assert (
            "the same class, “put on jacket” or “reading” (the mean of both)"
            in (against.summary[0])
        )


def test_two_classes_give_the_same_answer_either_way_round(planted: AttentionStore) -> None:
    there = compare_class(planted, "put on jacket", with_class="reading")
    back = compare_class(planted, "reading", with_class="put on jacket")
    same = ["W", "B", "delta", "p", "p_max_t", "q", "hedges_g", "low", "high", "B_pairs"]
    pd.testing.assert_frame_equal(there.table[same], back.table[same], atol=1e-6)
    np.testing.assert_allclose(there.table["W_class"], back.table["W_other"], atol=1e-6)


def test_shuffled_classes_yield_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = every(subjects=6, classes=4, cameras=2)
    shared = random_maps(rows.head(4), write(tmp_path / "x", rows).stored_sites("by hand")[0], 9)

    def alike(rows: pd.DataFrame, site: object) -> np.ndarray:
        noise = random_maps(rows, site, 1).astype(float)
        label = rng.permuted(np.array(rows["label"]).reshape(6, 4, 2)[:, :, 0], axis=1)
        shuffled = np.repeat(label.reshape(-1), 2)
        return (0.3 * noise + 0.7 * shared[shuffled]).astype(np.float16)

    store = write(tmp_path / "store", rows, maps=alike)
    found = [compare_class(store, name).table["p_max_t"].min() for name in CLASSES]
    assert min(found) > 0.05
    nothing = compare_class(store, "reading", head=1)
    assert nothing.significant.empty
    assert "does not show" in nothing.summary[0]
    assert "That is no evidence" in nothing.summary[0]


def test_the_same_seed_gives_the_same_answer(planted: AttentionStore) -> None:
    first = compare_class(planted, "reading", permutations=500, seed=3)
    again = compare_class(planted, "reading", permutations=500, seed=3)
    other = compare_class(planted, "reading", permutations=500, seed=4)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert (first.table["p"] != other.table["p"]).any()


def test_neighbours_are_the_parts_of_b(planted: AttentionStore) -> None:
    result = compare_class(planted, "reading")
    assert result.neighbours["similarity"].is_monotonic_decreasing
    assert result.neighbours["class_name"].iloc[-1] == "put on jacket"
    assert set(result.neighbours["class_code"]) == {"A014", "A023", "A001"}
    assert result.neighbours["similarity"].mean() == pytest.approx(result.table["B"].mean())


def test_layers_and_heads_are_chosen(planted: AttentionStore) -> None:
    last = compare_class(planted, "reading", layer="last", head=2, permutations=50)
    assert last.table[["layer", "head"]].to_numpy().tolist() == [[2, 2]]
    assert last.table["p"].equals(last.table["p_max_t"].rename("p"))
    narrowed = compare_class(planted.select(layer=1, head=[3, 1]), "reading", permutations=50)
    assert set(narrowed.table["head"]) == {1, 3}
    assert set(narrowed.table["layer"]) == {1}
    for wrong in ({"layer": 9}, {"head": 7}, {"layer": "first"}, {"metric": "l2"}):
        with pytest.raises(UserError):
            compare_class(planted, "reading", **wrong)


def test_mean_maps_weigh_subjects_the_same(tmp_path: Path) -> None:
    rows = every(subjects=3, classes=3, cameras=2)
    rows = rows[~((rows["subject"] == 1) & (rows["camera"] == 2))]
    store = write(tmp_path / "store", rows, layers=2)
    result = compare_class(store, "put on jacket", permutations=20)
    maps = store.select(layer=2, head=2).maps().values[:, 0, 0].astype(float)
    subject, label = rows["subject"].to_numpy(), rows["label"].to_numpy()
    cells = {
        (s, c): maps[(subject == s) & (label == c)].mean(axis=0)
        for s in (1, 2, 3)
        for c in range(3)
    }
    own = np.mean([cells[s, 0] for s in (1, 2, 3)], axis=0)
    rest = np.mean([(cells[s, 1] + cells[s, 2]) / 2 for s in (1, 2, 3)], axis=0)
    of_class, of_other, difference = result.mean_maps(2, 2)
    np.testing.assert_allclose(of_class, own, atol=1e-6)
    np.testing.assert_allclose(of_other, rest, atol=1e-6)
    np.testing.assert_allclose(difference, own - rest, atol=1e-6)
    with pytest.raises(UserError):
        result.mean_maps(3, 1)


def test_json_holds_everything_and_only_plain_values(planted: AttentionStore) -> None:
    result = compare_class(planted, "wear jacket", permutations=100)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["class"] == {"label": 0, "name": "put on jacket", "code": "A014"}
    assert (read["n_subjects"], read["n_samples"]) == (8, 128)
    assert read["test"]["permutations"] == 100
    assert read["test"]["alternative"] == "greater"
    assert len(read["table"]) == 8
    assert read["table"][4]["W"] == pytest.approx(result.table["W"].iloc[4])
    assert read["summary"] == result.summary


# ---- what may be compared


def test_few_subjects_have_no_interval_and_say_how_small_p_can_be(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=2, classes=3))
    result = compare_class(store, "reading")
    assert result.table[["low", "high"]].isna().all(axis=None)
    assert any(note.startswith("no interval: 2 subjects with reading") for note in result.notes)
    assert result.enumerated
    assert result.smallest_p == 1 / 9
    assert (result.table["p"] >= 1 / 9).all()
    assert "all 9 ways" in result.summary[-1]
    assert "out of reach" in result.summary[-1]
    assert result.to_dict()["table"][0]["low"] is None


def test_one_subject_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=1))
    with pytest.raises(UserError, match="only one subject has reading"):
        compare_class(store, "reading")


def test_a_class_alone_is_refused(tmp_path: Path) -> None:
    rows = every(subjects=4)
    store = write(tmp_path / "store", rows[rows["label"] == 1])
    with pytest.raises(UserError, match="at least one other class"):
        compare_class(store, "reading")
    with pytest.raises(UserError, match=r"no video of hand waving .*; there are reading"):
        compare_class(store.select(), "hand waving")
    with pytest.raises(UserError, match="with itself"):
        compare_class(store, "reading", with_class="A011")


def test_an_unknown_class_brings_the_nearest(planted: AttentionStore) -> None:
    with pytest.raises(UnknownClass) as error:
        compare_class(planted, "put on jaket")
    assert "put on jacket" in error.value.suggestions
    with pytest.raises(UnknownClass):
        compare_class(planted, "reading", with_class="writing a novel")


def test_classes_of_other_subjects_are_described_and_not_tested(tmp_path: Path) -> None:
    rows = every(subjects=6, classes=2)
    store = write(tmp_path / "store", rows[(rows["subject"] <= 3) == (rows["label"] == 0)])
    for with_class in (None, "reading"):
        result = compare_class(store, "put on jacket", with_class=with_class)
        assert not result.tested
        assert result.table["p"].isna().all()
        assert result.table["delta"].notna().all()
        assert "not tested" in result.summary[0]
        assert "no p-values" in result.summary[-1]
        assert any("no test" in note for note in result.notes)
        json.dumps(result.to_dict(), allow_nan=False)


def test_missing_cells_are_said(tmp_path: Path) -> None:
    rows = every(subjects=5)
    store = write(tmp_path / "store", rows[~((rows["subject"] == 2) & (rows["label"] == 1))])
    rest = compare_class(store, "reading", permutations=50)
    assert rest.subjects == [1, 3, 4, 5]
    assert "1 subject without reading (A011): part of the others only" in rest.notes
    two = compare_class(store, "put on jacket", with_class="reading")
    assert two.smallest_p == 1 / 2**4
    assert any(note.startswith("1 of 5 subjects have only one") for note in two.notes)


def test_splits_are_never_pooled(tmp_path: Path) -> None:
    test = every(subjects=3)
    train = every(subjects=5, split="train").assign(
        subject=lambda r: r["subject"] + 10, sample=lambda r: "T" + r["sample"]
    )
    store = write(tmp_path / "both", pd.concat([test, train], ignore_index=True))
    result = compare_class(store, "reading", permutations=50)
    assert (result.split, result.subjects) == ("test", [1, 2, 3])
    trained = compare_class(store, "reading", split="train", permutations=50)
    assert (trained.split, len(trained.subjects)) == ("train", 5)
    with pytest.raises(UserError, match="test, train, which are never pooled"):
        compare_class(store, "reading", split="validation")
    only = write(tmp_path / "train", train)
    fallen_back = compare_class(only, "reading", permutations=50)
    assert fallen_back.split == "train"
    assert "no row is of split 'test'; the comparison is of split 'train'" in fallen_back.notes
    with pytest.raises(UserError, match="no row is of split 'test'; all are of 'train'"):
        compare_class(only, "reading", split="test")
    unnamed = write(tmp_path / "none", every(split=None))
    with pytest.raises(UserError, match="no row is of split 'test'; they name none"):
        compare_class(unnamed, "reading", split="test")
    assert compare_class(unnamed, "reading", permutations=50).split is None


def test_copies_are_left_out(tmp_path: Path) -> None:
    rows = every(subjects=4, cameras=2)
    copies = {"S2L1C1": "S1L1C1", "S3L0C1": "elsewhere"}
    result = compare_class(write(tmp_path / "a", rows, copies=copies), "reading", permutations=50)
    assert result.n_samples == 23
    assert any("1 video whose file is that of another one here: S2L1C1" in n for n in result.notes)
    without = write(tmp_path / "b", rows)
    kept = without.select(sample=[s for s in rows["sample"] if s != "S2L1C1"])
    pd.testing.assert_frame_equal(
        result.table, compare_class(kept, "reading", permutations=50).table
    )


def test_the_second_person_is_not_the_subject(tmp_path: Path) -> None:
    first = every()
    second = every(person=2, subject=None)
    store = write(tmp_path / "store", pd.concat([first, second], ignore_index=True))
    alone = write(
        tmp_path / "alone", first, maps=lambda r, s: random_maps(pd.concat([r, r]), s)[: len(r)]
    )
    pd.testing.assert_frame_equal(
        compare_class(store, "reading", permutations=50).table,
        compare_class(alone, "reading", permutations=50).table,
    )
    with pytest.raises(UserError, match="name no subject"):
        compare_class(store, "reading", person=2)
    fused = write(tmp_path / "fused", every(person=None))
    assert compare_class(fused, "reading", permutations=50).n_samples == 12


def test_the_newest_step_is_compared(tmp_path: Path) -> None:
    rows = pd.concat([every(step=0), every(step=100)], ignore_index=True)
    result = compare_class(write(tmp_path / "store", rows), "reading", permutations=50)
    assert "rows of step 100 were taken, the newest of 2" in result.notes
    assert result.n_samples == 12


def test_uniform_maps_are_counted_and_left_out(tmp_path: Path) -> None:
    def some_uniform(rows: pd.DataFrame, site: object) -> np.ndarray:
        maps = random_maps(rows, site)
        maps[:3, 0] = 1 / 6
        return maps

    store = write(tmp_path / "store", every(subjects=6), maps=some_uniform)
    result = compare_class(store, "reading", metric="pearson", permutations=50)
    assert any(note.endswith("were left out: 3 in layer 1") for note in result.notes)
    assert not compare_class(store, "reading", permutations=50).notes


def test_the_newest_run_with_the_class_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "store", every(), run="first")
    store = write(tmp_path / "store", every(subjects=5), run="second")
    newest = compare_class(store, "reading", permutations=50)
    assert newest.run == "second"
    assert any("second" in note for note in newest.notes)
    assert compare_class(store.select(run="first"), "reading", permutations=50).run == "first"


def test_progress_is_reported(tmp_path: Path) -> None:
    store = write(tmp_path / "store", every(subjects=4, classes=4, cameras=2), layers=2)
    # Of one part of a cell the cells are not kept.
    part = store.select(where="subject > 1 or camera = 1")
    seen: list[tuple[str, int, int]] = []
    for source, rows in ((part, 28), (store, 32)):
        seen.clear()
        compare_class(source, "reading", permutations=10, progress=lambda *said: seen.append(said))
        reading = [(done, total) for what, done, total in seen if what == "reading maps"]
        assert reading[-1] == (2 * rows, 2 * rows)
        assert [done for done, _ in reading] == sorted(done for done, _ in reading)
