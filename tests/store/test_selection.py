from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores import make_catalogue, make_sites, make_store, softmax_maps
from tssan_viz.errors import UserError
from tssan_viz.selection import CONDITIONS, Selection
from tssan_viz.store import UnknownClass, open_store
from tssan_viz.store.schema import decode

CLASSES = ("put on jacket", "reading", "hand waving")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("selection") / "store"
    return make_store(
        path, subjects=4, classes=CLASSES, layers=3, heads=2, frames=6, segments=2, persons=2
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two runs of different data, the newer one smaller, with missing values and fused persons."""
    path = tmp_path_factory.mktemp("mixed") / "store"
    make_store(path, subjects=2, classes=CLASSES, cameras=(1,), frames=4, run="old", split="train")
    rng = np.random.default_rng(0)
    sites = make_sites(2, 2, 4)
    store = open_store(path)
    with store.writer("new", sites=sites, catalogue=make_catalogue(("reading", "jump"))) as writer:
        for step in (0, 10):
            writer.add(
                {
                    "sample": ["u", "v", "w"],
                    "label": [0, 1, 1],
                    "subject": [1, None, 3],
                    "person": None,
                    "predicted": [0, 0, None],
                    "correct": [True, False, None],
                    "step": step,
                    "phase": "train",
                },
                {s.name: softmax_maps(rng, (3, 2, 4, 4)).astype(np.float16) for s in sites},
            )
    with store.writer("begun", sites=sites, catalogue=make_catalogue(("reading",))):
        pass
    return store


def test_a_phase_that_nobody_knows_is_an_error(tmp_path):
    store = make_store(tmp_path / "s", subjects=2, frames=4)
    with pytest.raises(UserError, match="no phase 'inferense'; it has inference"):
        store.select(phase="inferense")
    assert not len(store.select(phase="train"))
    assert len(store.select(phase="inference")) == len(store.rows())


def test_maps_are_labelled(store):
    selection = store.select(class_name="A014", subject=[1, 3], layer=[1, 3], head=2, segment=2)
    maps = selection.maps()
    assert maps.dims == ("row", "layer", "head", "query", "key")
    assert maps.shape == (2 * 2 * 2 * 2, 2, 1, 6, 6)
    assert maps.dtype == np.float32
    assert maps["layer"].values.tolist() == [1, 3]
    assert maps["head"].values.tolist() == [2]
    rows = selection.rows()
    for name in ("sample", "label", "class_name", "subject", "camera", "segment", "person"):
        assert maps[name].values.tolist() == rows[name].tolist()
    assert maps["predicted"].values.tolist() == rows["predicted"].tolist()
    assert set(maps["subject"].values) == {1, 3}
    assert set(maps["segment"].values) == {2}
    np.testing.assert_allclose(maps.sum("key"), 1, atol=1e-3)
    everything = store.select().maps()
    same = everything[np.isin(everything["row_id"], maps["row_id"])].sel(layer=[1, 3], head=[2])
    np.testing.assert_array_equal(same.values, maps.values)


@pytest.mark.parametrize("rows", [1, 7, 2048])
def test_parts_make_the_whole(store, rows):
    selection = store.select(camera=2, layer=[2, 3])
    parts = list(selection.iter_maps(rows))
    assert all(len(frame) == len(maps) <= rows for frame, maps in parts)
    joined = np.concatenate([maps for _, maps in parts])
    assert joined.dtype == np.float16
    np.testing.assert_array_equal(decode(joined), selection.maps().values)
    pd.testing.assert_frame_equal(
        pd.concat([frame for frame, _ in parts], ignore_index=True), selection.rows()
    )


def test_scattered_rows_are_picked_and_near_ones_read_in_one_go(store, monkeypatch):
    scattered = store.select(subject=2, camera=1, person=1)
    whole = scattered.maps().values
    monkeypatch.setattr("tssan_viz.store.map_reading._STRETCH", 0)
    np.testing.assert_array_equal(scattered.maps().values, whole)
    frame = scattered.rows()
    backwards = store.read_maps(
        "generated", frame["row_id"].to_numpy()[::-1], {1: (1, 2), 3: (2, 1)}
    )
    np.testing.assert_array_equal(decode(backwards[::-1, 0]), whole[:, 0])
    np.testing.assert_array_equal(decode(backwards[::-1, 1, ::-1]), whole[:, 2])


def test_samples_are_one_line_each(store):
    selection = store.select(class_name="reading", correct=True)
    samples = selection.samples()
    rows = selection.rows()
    assert samples["sample"].tolist() == list(dict.fromkeys(rows["sample"]))
    assert (samples["rows"] == 4).all()
    assert (samples["predicted_name"] == "reading").all()
    assert samples["correct"].all()
    first = selection.sample()
    assert first.sample == samples["sample"][0]
    assert first.poses is not None
    assert first.poses.shape == (2, 2, 6, 25, 3)
    with pytest.raises(UserError, match="not in this selection"):
        selection.sample(store.select(class_name="hand waving").samples()["sample"][0])


values = {
    "class_name": st.sampled_from([*CLASSES, "A011", "a23", "Hand-Waving", 0, "1"]),
    "label": st.integers(0, 2),
    "predicted": st.sampled_from([*CLASSES, 1]),
    "subject": st.integers(0, 6),
    "camera": st.integers(1, 3),
    "replication": st.integers(1, 2),
    "segment": st.integers(1, 3),
    "person": st.integers(1, 3),
    "split": st.sampled_from(["test", "train"]),
    "correct": st.booleans(),
}
questions = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(one, st.lists(one, min_size=1, max_size=3))
        for name, one in values.items()
        if name != "label"
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(questions)
def test_conditions_keep_what_pandas_keeps(store, question):
    frame = store.rows("generated")
    keep = pd.Series(True, index=frame.index)
    labels = {
        "A011": 1,
        "a23": 2,
        "Hand-Waving": 2,
        "1": 1,
        **{n: i for i, n in enumerate(CLASSES)},
    }
    for name, value in question.items():
        wanted = value if isinstance(value, list) else [value]
        if name in ("class_name", "predicted"):
            column = "label" if name == "class_name" else "predicted"
            keep &= frame[column].isin([labels.get(w, w) for w in wanted])
        else:
            keep &= frame[name].isin(wanted)
    selection = store.select(**question)
    assert selection.rows()["row_id"].tolist() == frame["row_id"][keep].tolist()
    assert len(selection) == keep.sum()
    assert (selection.empty_because is None) == bool(keep.any())
    assert str(selection)
    halves = list(question.items())
    one, two = dict(halves[::2]), dict(halves[1::2])
    narrowed = store.select(**one).select(**two)
    assert narrowed.rows()["row_id"].tolist() == selection.rows()["row_id"].tolist()


@pytest.mark.parametrize(
    "condition",
    [
        "confidence > 0.9",
        "confidence > 0.9 or subject = 2",
        "class_name like '%jacket' and not correct",
        "subject in (1, 3) and sample != 'x''y'",
        "predicted <> label",
    ],
)
def test_sql_keeps_what_pandas_keeps(store, condition):
    frame = store.rows("generated")
    expected = {
        "confidence > 0.9": frame["confidence"] > 0.9,
        "confidence > 0.9 or subject = 2": (frame["confidence"] > 0.9) | (frame["subject"] == 2),
        "class_name like '%jacket' and not correct": frame["class_name"].str.endswith("jacket")
        & ~frame["correct"],
        "subject in (1, 3) and sample != 'x''y'": frame["subject"].isin([1, 3]),
        "predicted <> label": frame["predicted"] != frame["label"],
    }[condition]
    selection = store.select(where=condition)
    assert selection.rows()["row_id"].tolist() == frame["row_id"][expected].tolist()
    assert condition in str(selection)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("confidnce > 0.9", r"confidnce.*columns are row_id, run"),
        ("confidence >", "syntax error"),
        ("sample", "cannot be used"),
        ("1 = 1); drop table x", "syntax error"),
        ("exists (select 1 from read_text('/etc/hostname'))", "cannot be used"),
        ("exists (from '/etc/hostname')", "cannot be used"),
        ("getenv('HOME') = ''", "cannot be used"),
        ("  ", "condition in SQL"),
        (3, "condition in SQL"),
    ],
)
def test_bad_sql_is_refused_in_words(store, condition, message):
    with pytest.raises(UserError, match=message):
        store.select(where=condition)


def test_sql_writes_nothing(store, tmp_path):
    target = tmp_path / "out.csv"
    with pytest.raises(UserError):
        store.select(where=f"true; copy (select 1) to '{target}'")
    assert not target.exists()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"subjet": 1}, "did you mean 'subject'"),
        ({"subject": "one"}, "whole number, not 'one'"),
        ({"subject": 1.5}, "whole number"),
        ({"subject": True}, "whole number"),
        ({"subject": []}, "empty list"),
        ({"correct": "yes"}, "True or False"),
        ({"split": 3}, "is a word"),
        ({"class_name": "reading", "label": 1}, "the same"),
        ({"layer": 4}, "no layer 4; there is 1–3"),
        ({"head": [1, 3]}, "no head 3; there is 1–2"),
        ({"layer": 0}, "counted from 1"),
        ({"stream": "motion"}, "no stream 'motion'; it has main"),
        ({"run": "generatd"}, "did you mean 'generated'"),
        ({"sample": "S001C001P001R001A041"}, r"did you mean S001C001P001R001A0\d\d"),
    ],
)
def test_what_does_not_exist_is_refused_in_words(store, conditions, message):
    with pytest.raises(UserError, match=message):
        store.select(**conditions)


def test_an_unknown_class_suggests(store):
    with pytest.raises(UnknownClass) as caught:
        store.select(class_name="put jacket")
    assert caught.value.suggestions == ("put on jacket",)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"subject": 99}, "no row has subject 99; there is 1, 2, 3, 4"),
        ({"split": "train"}, "no row has split train; there is test"),
        ({"epoch": 3}, "recorded without 'epoch'"),
        ({"where": "confidence > 2"}, "no row has confidence > 2"),
        ({"subject": 1, "where": "subject = 2"}, "conditions before it has subject = 2"),
        ({"class_name": "reading", "where": "label = 0"}, "conditions before it"),
    ],
)
def test_an_empty_selection_says_which_condition_emptied_it(store, conditions, message):
    selection = store.select(**conditions)
    assert len(selection) == 0
    assert message in selection.empty_because
    assert message in str(selection)
    assert selection.rows().empty
    assert selection.samples().empty
    assert selection.measures().empty
    assert list(selection.iter_maps()) == []
    for read in (selection.maps, selection.sample):
        with pytest.raises(UserError, match="nothing to read"):
            read()


def test_a_selection_reads_as_a_sentence(store):
    selection = store.select(class_name="A014", subject=[1, 2], layer=2, correct=True)
    assert str(selection).endswith(
        "(class put on jacket (A014); subject 1, 2; a right prediction) in run 'generated', "
        "layer 2, heads 1–2"
    )
    assert str(store.select()).startswith("192 rows of 48 videos (everything)")
    assert repr(selection).startswith("<Selection: ")


def test_the_newest_run_that_fits_is_taken_and_said(mixed):
    assert mixed.run_names() == ["old", "new", "begun"]
    assert mixed.latest_run() == "new"
    newest = mixed.select()
    assert newest.run == "new"
    assert "newest of 2 runs" in newest.notes[0]
    assert mixed.select(class_name="put on jacket").run == "old"
    assert mixed.select(split="train").run == "old"
    assert mixed.select(class_name="jump").run == "new"
    assert mixed.select(class_name="reading").run == "new"
    chosen = mixed.select(class_name="reading", run="old")
    assert chosen.run == "old"
    assert chosen.notes == []
    assert mixed.select(run=["old", "begun"]).run == "old"
    with pytest.raises(UnknownClass):
        mixed.select(class_name="jump", run="old")
    with pytest.raises(UserError, match="no run"):
        mixed.select(run="other")
    begun = mixed.select(run="begun")
    assert begun.empty_because == "run 'begun' has no rows"


def test_missing_values_fit_nothing_but_fused_persons_fit_each(mixed):
    new = mixed.select(run="new", step=10)
    assert len(new) == 3
    assert new.select(subject=[1, 3]).rows()["sample"].tolist() == ["u", "w"]
    assert new.select(correct=False).rows()["sample"].tolist() == ["v"]
    assert len(new.select(person=1)) == len(new.select(person=2)) == 3
    maps = new.maps()
    assert np.isnan(maps["subject"].values).tolist() == [False, True, False]
    assert maps["correct"].values.tolist()[:2] == [True, False]
    samples = mixed.select(run="new").samples()
    assert samples["rows"].tolist() == [2, 2, 2]
    assert samples["predicted_name"].tolist()[:2] == ["reading", "reading"]
    assert pd.isna(samples["predicted_name"][2])


def test_a_selection_is_narrowed(store):
    wide = store.select(subject=[1, 2], layer=[2, 3])
    narrow = wide.select(subject=[2, 3], layer=3, where="camera = 1")
    assert set(narrow.rows()["subject"]) == {2}
    assert narrow.layers == (3,)
    assert wide.layers == (2, 3)
    assert set(wide.rows()["subject"]) == {1, 2}
    with pytest.raises(UserError, match="no layer 1; there is 2–3"):
        wide.select(layer=1)
    with pytest.raises(UserError, match="of run 'generated'"):
        wide.select(run="other")
    assert wide.select(subject=3).empty_because == "no row has subject 3; there is 1, 2"


def test_what_is_handed_out_may_be_changed(store):
    selection = store.select(subject=1)
    tables = (selection.rows, selection.samples, selection.measures, store.rows)
    for table in tables:
        before = table().copy()
        mine = table()
        mine["sample"] = "changed"
        pd.testing.assert_frame_equal(table(), before)


def test_every_condition_is_documented():
    for name in CONDITIONS:
        assert f"``{name}``" in Selection.__doc__


def test_asking_a_store_imports_no_torch(store):
    code = f"""
import json, sys
import tssan_viz
store = tssan_viz.open_store({store.url!r})
selection = store.select(class_name="put on jacket", where="confidence > 0")
selection.maps(); selection.samples(); selection.measures(); selection.sample()
print(json.dumps([m for m in sys.modules if m.split(".")[0] in ("torch", "tssan", "matplotlib")]))
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(out.stdout) == []


def test_a_video_of_a_selection_is_the_same_however_it_is_asked_for(tmp_path: Path) -> None:
    selection = make_store(tmp_path / "s", subjects=3, segments=2, cameras=(1,)).select(
        subject=[1, 2]
    )
    for name in selection.samples()["sample"].tolist()[::3]:
        one, other = selection.of_sample(name), selection.select(sample=name)
        pd.testing.assert_frame_equal(one.rows(), other.rows())
        assert str(one) == str(other)
        np.testing.assert_array_equal(one.maps(), other.maps())
    with pytest.raises(UserError, match="S001C001P002R001A014"):
        selection.of_sample("S001C001P002R001A01")
