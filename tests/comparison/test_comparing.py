"""Questions other than a class: cameras, subjects, outcomes, durations, steps, conditions, runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from tests.comparison.stores import FRAMES, every, random_maps, write
from tests.stores import make_catalogue, make_sites, make_store
from tssan_viz import compare
from tssan_viz.comparison import ClassComparison, GroupComparison, RunComparison
from tssan_viz.comparison.similarity import unit_vectors
from tssan_viz.errors import UserError
from tssan_viz.store import AttentionStore, Site, StoredSample, open_store


def imprinted(column: str, strength: float = 0.6) -> Any:
    """Maps whose head 1 carries an imprint of a column's value."""

    def maps(rows: pd.DataFrame, site: Site) -> np.ndarray:
        plain = random_maps(rows, site, 5).astype(np.float64)
        values = pd.factorize(rows[column])[0]
        shared = random_maps(rows.head(8), site, 77).astype(np.float64)
        plain[:, 0] = (1 - strength) * plain[:, 0] + strength * shared[values % 8, 0]
        return plain.astype(np.float16)

    return maps


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> AttentionStore:
    rows = every(subjects=7, classes=2, cameras=3)
    rows["predicted"] = np.where(rows["camera"] == 2, 1 - rows["label"], rows["label"])
    rows["correct"] = rows["predicted"] == rows["label"]
    rows["confidence"] = np.where(rows["camera"] == 3, 0.95, 0.5)
    return write(tmp_path_factory.mktemp("c") / "store", rows, maps=imprinted("camera"))


def brute_force(store: AttentionStore, column: str, head: int) -> tuple[float, float]:
    """W and B by a loop over pairs of videos: each cell of these stores is one video."""
    selection = store.select(head=head)
    units, _ = unit_vectors(selection.maps().values[:, 0, 0], "cosine")
    rows = selection.rows()
    similarity = 1 - cdist(units, units, "cosine")
    within: dict[Any, list[float]] = {}
    between = []
    for i, a in rows.iterrows():
        for j, b in rows.iterrows():
            if a["subject"] == b["subject"] or a["label"] != b["label"]:
                continue
            if a[column] == b[column]:
                within.setdefault(a[column], []).append(similarity[i, j])
            else:
                between.append(similarity[i, j])
    return float(np.mean([np.mean(values) for values in within.values()])), float(np.mean(between))


def test_cameras_are_the_definition_and_the_imprint_is_found(cameras: AttentionStore) -> None:
    result = compare(cameras, by="camera")
    assert isinstance(result, GroupComparison)
    assert result.exchange == "within"
    assert result.names == ("camera 1", "camera 2", "camera 3")
    for head in (1, 2):
        w, b = brute_force(cameras, "camera", head)
        line = result.table.iloc[head - 1]
        assert line["W"] == pytest.approx(w, abs=1e-5)
        assert line["B"] == pytest.approx(b, abs=1e-5)
    assert result.significant["head"].tolist() == [1]
    assert "when they are seen by the same camera" in result.summary[0]
    assert (
        "exchanges of the groups over all classes at once (seed 0) within each of 7 subjects"
        in result.summary[-1]
    )
    between = result.between.to_numpy()
    np.testing.assert_allclose(between, between.T, atol=1e-6)
    again = compare(cameras, by="camera")
    pd.testing.assert_frame_equal(result.table, again.table)


def test_one_camera_against_the_rest_and_in_one_class(cameras: AttentionStore) -> None:
    rest = compare(cameras, groups=["camera:2"])
    assert rest.title == "camera 2 against the other cameras"
    assert rest.significant["head"].tolist() == [1]
    two = compare(cameras, class_name="reading", groups=["camera:1", "camera:3"])
    assert two.n_samples == 14
    assert two.smallest_p == 2 / 2**7
    a, b = cameras.select(camera=1), cameras.select(camera=3)
    selected = compare(a, b)
    named = compare(cameras, groups="camera:1", by="camera")
    assert selected.title == "camera 1 against camera 3"
    assert named.title != selected.title


def test_outcomes_predictions_and_conditions(cameras: AttentionStore) -> None:
    correct = compare(cameras, by="correct")
    assert isinstance(correct, GroupComparison)
    assert correct.names == ("wrong", "right")
    # Wrong is what camera 2 sees, so that the imprint of cameras is one of outcomes.
    assert correct.significant["head"].tolist() == [1]
    assert compare(cameras, by="predicted").significant["head"].tolist() == [1]
    # A condition that is one camera in other words is that.
    sure = cameras.select(where="confidence > 0.9")
    assert "the same camera" in compare(sure, cameras.select() - sure).summary[0]


def test_a_condition_of_your_own(tmp_path: Path) -> None:
    rows = every(subjects=7, classes=2, cameras=3)
    sure = (rows["subject"] + rows["camera"]) % 3 == 0
    rows["confidence"] = np.where(sure, 0.95, 0.5)
    store = write(tmp_path / "store", rows, maps=imprinted("confidence"))
    first = store.select(where="confidence > 0.9")
    result = compare(first, store.select() - first)
    assert isinstance(result, GroupComparison)
    assert result.exchange == "within"
    assert result.significant["head"].tolist() == [1]
    assert "of the same group" in result.summary[0]


def test_groups_of_subjects_exchange_whole_subjects(tmp_path: Path) -> None:
    rows = every(subjects=8, classes=3, cameras=2)
    rows["tall"] = rows["subject"] > 4
    store = write(tmp_path / "store", rows.drop(columns="tall"), maps=_of_subjects)
    result = compare(store, groups=["subject:5,6,7,8"])
    assert isinstance(result, GroupComparison)
    assert result.exchange == "subjects"
    assert result.n_assignments == 70
    assert result.smallest_p == 2 / 70
    assert result.significant["head"].tolist() == [1]
    assert result.title == "subject 5, 6, 7, 8 against the other subjects"
    both = compare(store, groups=["subject:1,2,3,4", "subject:5,6,7,8"])
    pd.testing.assert_series_equal(both.table["delta"], result.table["delta"])
    # The fast way through kept cells, and through the maps: a filter cuts the cells.
    cut = compare(store.select(camera=1), groups=["subject:5,6,7,8"])
    assert cut.significant["head"].tolist() == [1]
    few = compare(store.select(subject=[1, 2, 5, 6]), groups=["subject:5,6"])
    assert few.smallest_p == 2 / 6
    assert "out of reach with so few subjects" in few.summary[-1]
    assert any("no interval: 4 subjects" in note for note in few.notes)
    assert few.table["low"].isna().all()


def _of_subjects(rows: pd.DataFrame, site: Site) -> np.ndarray:
    return np.asarray(imprinted("tall")(rows.assign(tall=rows["subject"] > 4), site))


def test_single_subjects_are_described(cameras: AttentionStore) -> None:
    result = compare(cameras, by="subject")
    assert isinstance(result, GroupComparison)
    assert not result.tested
    assert result.table["p"].isna().all()
    assert "Described, not tested" in result.summary[0]
    assert "single subjects are described" in result.summary[-1]
    selection = cameras.select(head=2)
    units, _ = unit_vectors(selection.maps().values[:, 0, 0], "cosine")
    rows = selection.rows()
    own = (rows["subject"] == 1) & (rows["label"] == 0)
    three = units[own.to_numpy()]
    expected = (three @ three.T)[~np.eye(3, dtype=bool)].mean()
    alone = compare(cameras, by="subject", class_name=0, head=2)
    assert alone.table["W_1"].iloc[0] == pytest.approx(expected, abs=1e-5)
    one = compare(cameras, groups=["subject:3"])
    assert not one.tested


def test_steps_of_one_run_are_sign_flips(tmp_path: Path) -> None:
    rows = pd.concat(
        [every(subjects=8, classes=2, step=step, phase="probe") for step in (0, 50, 100)]
    )
    rows["sample"] = rows["sample"] + "-" + rows["step"].astype(str)
    store = write(tmp_path / "store", rows.reset_index(drop=True), maps=imprinted("step"))
    result = compare(store, by="step")
    assert isinstance(result, GroupComparison)
    assert (result.exchange, result.n_assignments, result.smallest_p) == ("within", 256, 2 / 256)
    assert result.names == ("step 0", "step 100")
    assert result.significant["head"].tolist() == [1]
    assert any("the first and the last of 3" in note for note in result.notes)
    other = compare(store, groups=["step:0", "step:50"])
    assert other.title == "step 0 against step 50"


def _with_durations(path: Path) -> AttentionStore:
    rows = every(subjects=7, classes=2, cameras=3)
    sites, catalogue = make_sites(1, 2, FRAMES), make_catalogue(["put on jacket", "reading"])
    store = open_store(path, create=True)
    names = [catalogue.classes[label] for label in rows["label"]]
    columns = {name: rows[name].tolist() for name in rows} | {
        "class_name": [entry.name for entry in names],
        "class_code": [entry.code for entry in names],
    }
    with store.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        writer.add_samples(
            [
                StoredSample(
                    sample=line["sample"],
                    label=int(line["label"]),
                    class_name=None,
                    class_code=None,
                    subject=int(line["subject"]),
                    camera=int(line["camera"]),
                    frames=np.arange(FRAMES, dtype=np.float32)[None],
                    # A long class is not slow: thirds are of each class.
                    seconds=np.linspace(0, line["camera"] + 10 * line["label"], FRAMES)[None],
                )
                for line in rows.to_dict(orient="records")
            ]
        )
        writer.add(columns, {site.name: imprinted("camera")(rows, site) for site in sites})
    return store


def test_durations_are_thirds_within_each_class(tmp_path: Path) -> None:
    store = _with_durations(tmp_path / "store")
    result = compare(store, by="duration")
    assert isinstance(result, GroupComparison)
    assert result.names == ("short", "middle", "long")
    assert result.groups["videos"].tolist() == [14, 14, 14]
    assert result.significant["head"].tolist() == [1]
    assert any("thirds within each class" in note for note in result.notes)


def test_two_runs_are_described_with_heads_matched(tmp_path: Path) -> None:
    rows = every(subjects=4, classes=2)
    order = [2, 0, 1]

    def first(rows: pd.DataFrame, site: Site) -> np.ndarray:
        return np.asarray(imprinted_heads(rows, site))

    write(tmp_path / "store", rows, heads=3, run="a", maps=first)
    store = write(
        tmp_path / "store", rows, heads=3, run="b", maps=lambda r, s: first(r, s)[:, order]
    )
    result = compare(store, groups=["run:a", "run:b"])
    assert isinstance(result, RunComparison)
    assert result.matched
    assert not result.tested
    assert result.table["other_head"].tolist() == [order.index(head) + 1 for head in range(3)]
    means = [
        unit_vectors(store.select(run=run).mean().values[0], "cosine")[0] for run in ("a", "b")
    ]
    expected = linear_sum_assignment(means[0] @ means[1].T, maximize=True)[1] + 1
    assert result.table["other_head"].tolist() == expected.tolist()
    np.testing.assert_allclose(result.table["mean_maps"], 1, atol=1e-5)
    assert any("matched by assignment" in note for note in result.notes)
    maps = result.group_maps(1, 1)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)
    with pytest.raises(UserError, match="head 1 of run 'a' is not head 1"):
        compare(store, groups=["run:a", "run:b"], head=1)
    json.dumps(result.to_dict(), allow_nan=False)


def imprinted_heads(rows: pd.DataFrame, site: Site) -> np.ndarray:
    plain = random_maps(rows, site, 5).astype(np.float64)
    shared = random_maps(rows.head(1), site, 33).astype(np.float64)
    return (0.4 * plain + 0.6 * shared).astype(np.float16)


def test_maps_of_different_lengths_are_not_compared(tmp_path: Path) -> None:
    make_store(
        tmp_path / "store", subjects=3, layers=1, heads=2, frames=8, run="short", poses=False
    )
    store = make_store(
        tmp_path / "store", subjects=3, layers=1, heads=2, frames=16, run="long", poses=False
    )
    with pytest.raises(UserError, match="8 × 8 in run 'short' and 16 × 16"):
        compare(store, by="run")


def test_two_selections_are_compared_by_what_sets_them_apart(cameras: AttentionStore) -> None:
    run = cameras.select()
    classes = compare(run.select(label=0), run.select(label=1))
    assert isinstance(classes, ClassComparison)
    people = compare(run.select(subject=[1, 2, 3]), run.select(subject=[4, 5, 6, 7]))
    assert isinstance(people, GroupComparison)
    assert people.exchange == "subjects"
    for a, b, expected in (
        (run.select(camera=1), run.select(camera=[1, 2]), "share 14 rows"),
        (run.select(camera=1, label=0), run.select(camera=3, label=1), "class and camera at once"),
        (run.select(camera=9), run, "nothing to compare"),
    ):
        with pytest.raises(UserError, match=expected):
            compare(a, b)


def test_splits_are_never_pooled_by_two_selections(tmp_path: Path) -> None:
    rows = every(subjects=4, classes=2)
    rows.loc[rows["subject"] > 2, "split"] = "train"
    store = write(tmp_path / "store", rows)
    with pytest.raises(UserError, match="never pooled"):
        compare(store.select(split="test"), store.select(split="train"))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, "what is to be compared"),
        ({"by": "camra"}, "did you mean 'camera'"),
        ({"groups": ["subject"]}, "written like subject:1,3"),
        ({"groups": ["subject:1,99"]}, "no video has subject 99"),
        ({"groups": ["subject:1", "camera:1"]}, "groups are of one thing"),
        ({"groups": ["subject:1,2", "subject:2,3"]}, "in two groups"),
        ({"groups": ["subject:one"]}, "is a number"),
        ({"groups": ["correct:maybe"]}, "true or false"),
        ({"by": "step"}, "all rows are of step 0"),
        ({"by": "camera", "with_class": 1, "class_name": 0}, "leave out with_class"),
        ({"by": "camera", "groups": ["subject:1,2"]}, "leave one out"),
        ({"by": "run"}, "two at a time"),
        ({"by": "camera", "metric": "jsd"}, "cuts through"),
        ({"by": "duration"}, "all videos are equally long"),
        ({"class_name": 0, "align": "speed"}, "none, seconds, dtw"),
        ({"class_name": 0, "align": "dtw"}, "without poses"),
        ({"by": "camera", "permutations": 0}, "at least 1"),
    ],
)
def test_bad_questions_say_what_would_be_right(
    cameras: AttentionStore, question: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        compare(cameras, **question)


def test_a_group_of_one_video_is_refused(cameras: AttentionStore) -> None:
    one = cameras.select(sample="S1L0C1")
    with pytest.raises(UserError, match=r"single video|one subject only|no two subjects"):
        compare(one, cameras.select(label=0) - one)


def test_values_that_are_not_finite_are_refused() -> None:
    maps = np.full((2, 3, 3), 1 / 3)
    maps[1, 0, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        unit_vectors(maps)


def test_views_are_the_means_over_pairs(tmp_path: Path) -> None:
    rows = every(subjects=4, classes=2, cameras=3)
    store = write(tmp_path / "store", rows)
    result = compare(store, class_name=0)
    assert isinstance(result, ClassComparison)
    selection = store.select(label=0, head=1)
    units, _ = unit_vectors(selection.maps().values[:, 0, 0], "cosine")
    similarity = 1 - cdist(units, units, "cosine")
    mine = selection.rows()
    camera, subject = (mine[name].to_numpy(int) for name in ("camera", "subject"))
    same = camera[:, None] == camera
    apart = subject[:, None] != subject
    line = result.views.iloc[0]
    assert line["same_view"] == pytest.approx(similarity[same & apart].mean(), abs=1e-6)
    assert line["other_view"] == pytest.approx(similarity[~same & apart].mean(), abs=1e-6)
    assert line["subject_other_view"] == pytest.approx(similarity[~same & ~apart].mean(), abs=1e-6)
    assert np.isnan(line["subject_same_view"])
    # The same from the maps, where kept cells cannot be used.
    part = compare(store.select(where="camera < 3"), class_name=0)
    seen = camera < 3
    both = seen[:, None] & seen
    assert part.views["other_view"].iloc[0] == pytest.approx(  # type: ignore[attr-defined]
        similarity[~same & apart & both].mean(), abs=1e-6
    )


def test_accuracy_is_mentioned_and_chance_is_warned_of(tmp_path: Path) -> None:
    rows = every(subjects=4, classes=3, cameras=2)
    rows["predicted"] = (rows["label"] + rows["subject"] % 3) % 3
    rows["correct"] = rows["predicted"] == rows["label"]
    poor = compare(write(tmp_path / "poor", rows), class_name=0)
    assert any("no more than guessing among 3 classes" in note for note in poor.notes)
    rows["predicted"], rows["correct"] = rows["label"], True
    good = compare(write(tmp_path / "good", rows), class_name=0)
    assert good.accuracy is not None
    assert good.accuracy.share == 1
    for by in ("correct", "predicted"):
        with pytest.raises(UserError, match="right on all these videos"):
            compare(good.selection, by=by)
    assert not any("guessing" in note for note in good.notes)


def test_aligned_and_in_phase_stand_side_by_side(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", subjects=6, layers=1, heads=2, frames=8)
    for align in ("seconds", "dtw"):
        result = compare(store, class_name="reading", align=align, permutations=200)
        plain = compare(store, class_name="reading", permutations=200)
        pd.testing.assert_series_equal(result.table["delta"], plain.table["delta"])
        assert result.aligned is not None
        assert result.table["delta_aligned"].tolist() == result.aligned.table["delta"].tolist()
        assert any(f"in {align}" in note for note in result.notes)


def test_a_distance_is_tested_like_a_similarity(tmp_path: Path) -> None:
    store = make_store(
        tmp_path / "store", subjects=6, layers=1, heads=2, frames=8, planted="reading", poses=False
    )
    for metric in ("jsd", "tv", "wasserstein"):
        result = compare(store, class_name="reading", metric=metric, permutations=500)
        assert result.significant["head"].tolist() == [1]
        table = result.table
        np.testing.assert_allclose(table["delta"], table["B"] - table["W"], atol=1e-6)
        assert (table["W"] > 0).all()
        assert f"distance ({metric})" in result.summary[1]
    people = compare(store, groups=["subject:1,2,3"], metric="jsd")
    assert people.table["W"].gt(0).all()


def test_predictions_that_people_have_in_other_classes_too_take_no_part(tmp_path: Path) -> None:
    rows = every(subjects=6, classes=4, cameras=4)
    # 0 is taken for 0 or 1 and 1 for 1 or 2, so that 1 is exchanged with 0 or with 2, not both.
    rows["predicted"] = rows["label"] + (rows["label"].isin([0, 1]) & (rows["camera"] > 2))
    # Whom nobody else is like: one video of class 3 is taken for 0.
    rows.loc[rows["sample"] == "S2L3C1", "predicted"] = 0
    rows["correct"] = rows["predicted"] == rows["label"]
    store = write(tmp_path / "store", rows, maps=imprinted("predicted", 0.9))
    found = compare(store, by="predicted")
    assert isinstance(found, GroupComparison)
    assert (found.exchange, found.n_samples, found.n_assignments) == ("alike", 24, 2**6)
    assert len(found.names) == 2
    assert found.significant["head"].tolist() == [1]
    said = " ".join(found.notes)
    assert "28 videos of predictions that a person has in other classes" in said
    assert "left out: 2 groups without two videos that could be compared" in said
    alone = compare(store, groups=["predicted:0", "predicted:3"])
    assert alone.reason is not None
    assert "no two subjects have several of the groups" in alone.reason


def test_every_comparison_is_plain_for_json(cameras: AttentionStore) -> None:
    for question in ({"by": "camera"}, {"by": "subject"}, {"class_name": 0}, {"by": "predicted"}):
        written = json.dumps(compare(cameras, **question).to_dict(), allow_nan=False)  # type: ignore[arg-type]
        read = json.loads(written)
        assert {"schema", "table", "test", "summary", "notes", "accuracy"} <= read.keys()
        assert len(read["table"]) == 2
