"""What a selection gives beyond rows: compositions, means, lazy maps, poses, nearest maps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.stores import SKELETON, make_store
from tssan_viz.errors import UserError
from tssan_viz.store import open_store
from tssan_viz.store.reader import AttentionStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("composed") / "store"
    make_store(path, subjects=4, frames=8, segments=2, seed=3)
    return open_store(path)


def names(selection):
    return selection.rows()["row_id"].tolist()


def test_selections_compose_as_sets_of_rows(store):
    reading, third = store.select(class_name="reading"), store.select(subject=3)
    both, either, less = reading & third, reading | third, reading - third
    assert set(names(both)) == set(names(reading)) & set(names(third))
    assert set(names(either)) == set(names(reading)) | set(names(third))
    assert set(names(less)) == set(names(reading)) - set(names(third))
    for part in (both, either, less):
        everything = names(store.select())
        assert names(part) == [n for n in everything if n in set(names(part))]
    assert names((reading - third) | both) == names(reading)
    np.testing.assert_array_equal(
        both.maps().values, store.select(class_name="reading", subject=3).maps().values
    )


def test_a_composed_selection_says_what_it_is(store):
    reading, third = store.select(class_name="reading"), store.select(subject=3, camera=1)
    assert "(class reading (A011) or (subject 3; camera 1)) in run" in str(reading | third)
    assert "class reading (A011) but not (subject 3; camera 1)" in str(reading - third)
    nested = (reading | third) & store.select(subject=2)
    assert "(class reading (A011) or (subject 3; camera 1)) and subject 2" in str(nested)
    nothing = reading - reading
    assert len(nothing) == 0
    assert "no row has class reading (A011) but not class reading" in str(nothing)
    with pytest.raises(UserError, match="nothing to read"):
        nothing.maps()
    assert names((reading | third).select(subject=3)) == names(third | (reading.select(subject=3)))


def test_what_cannot_be_composed_is_said(store, tmp_path):
    reading = store.select(class_name="reading")
    with pytest.raises(UserError, match="same layers: one is of 1–2, the other of 1"):
        reading & store.select(layer=1)
    with pytest.raises(UserError, match="same heads"):
        reading | store.select(head=1)
    with pytest.raises(UserError, match="with a selection, not with 3"):
        reading & 3
    other = make_store(tmp_path / "s", subjects=2, frames=8)
    with pytest.raises(UserError, match="same store"):
        reading - other.select()


def test_maps_are_read_when_they_are_looked_at(store, monkeypatch):
    selection = store.select(class_name="reading")
    _, whole = next(selection.iter_maps())
    asked = []
    read = AttentionStore.read_maps

    def watch(self, run, row_ids, sites):
        asked.append((len(row_ids), dict(sites)))
        return read(self, run, row_ids, sites)

    monkeypatch.setattr(AttentionStore, "read_maps", watch)
    maps = selection.maps()
    assert maps.dims == ("row", "layer", "head", "query", "key")
    assert asked == []
    one = maps.sel(layer=2, head=3)
    assert asked == []
    np.testing.assert_array_equal(one.values, whole[:, 1, 2].astype(np.float32))
    assert asked == [(len(selection), {2: (3,)})]
    part = maps.isel(row=[5, 2], head=slice(1, 3), query=slice(None, None, -1), key=[0, 3])
    expected = whole[[5, 2]][:, :, 1:3, ::-1][..., [0, 3]].astype(np.float32)
    np.testing.assert_array_equal(part.values, expected)
    np.testing.assert_array_equal(maps.isel(layer=[1, 0]).values, whole[:, [1, 0]])
    assert maps.isel(row=slice(0, 0)).values.shape == (0, 2, 4, 8, 8)
    asked.clear()
    first, second = maps.values, maps.values
    np.testing.assert_array_equal(first, second)
    assert len(asked) == 1
    mean = maps.groupby("subject").mean("row")
    assert mean.sizes["subject"] == 4


def test_dask_computes_the_same_in_chunks(store):
    selection = store.select(class_name=["reading", "drink water"])
    lazy = selection.dask(rows=7)
    assert lazy.data.chunksize[:2] == (7, 1)
    np.testing.assert_array_equal(lazy.values, selection.maps().values)
    np.testing.assert_allclose(
        lazy.mean("row").compute(), selection.maps().values.mean(0), rtol=1e-5
    )
    copy = pickle.loads(pickle.dumps(selection.dask().data))
    np.testing.assert_array_equal(copy.compute(), lazy.values)


@pytest.mark.parametrize("by", [(), "class_name", ["class_name", "subject"], ["camera", "correct"]])
def test_means_are_those_of_pandas(store, by, monkeypatch):
    monkeypatch.setattr("tssan_viz.selection._MEAN_BYTES", 4 * 2 * 4 * 64 * 7)
    selection = store.select()
    mean = selection.mean(by)
    frame, values = selection.rows(), selection.maps().values
    keys = [by] if isinstance(by, str) else list(by)
    assert mean.dims == (*keys, "layer", "head", "query", "key")
    groups = frame.groupby(keys).indices if keys else {(): np.arange(len(frame))}
    assert int(mean["rows"].sum()) == len(frame)
    for key, rows in groups.items():
        at = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        np.testing.assert_allclose(mean.sel(at).values, values[rows].mean(0), rtol=1e-5)
        assert int(mean["rows"].sel(at)) == len(rows)


def test_a_mean_of_no_rows_is_nan(store):
    one = store.select(subject=1, class_name="reading")
    two = store.select(subject=2, class_name="hand waving")
    mean = (one | two).mean(["subject", "class_name"])
    assert np.isnan(mean.sel(subject=1, class_name="hand waving")).all()
    assert not np.isnan(mean.sel(subject=1, class_name="reading")).any()
    with pytest.raises(UserError, match="did you mean 'subject'"):
        one.mean("subjct")


def test_poses_are_those_of_the_samples(store):
    selection = store.select(class_name="reading", subject=[1, 2])
    poses = selection.poses()
    assert poses.dims == ("sample", "person", "segment", "frame", "joint", "coordinate")
    assert poses["joint"].values.tolist() == list(SKELETON.joints)
    assert poses.attrs["units"] == "m"
    for name in selection.samples()["sample"]:
        np.testing.assert_array_equal(poses.sel(sample=name), store.sample(name).poses)


def test_a_run_without_poses_says_so(tmp_path):
    store = make_store(tmp_path / "s", subjects=2, frames=4, poses=False)
    with pytest.raises(UserError, match="without poses"):
        store.select().poses()


def test_the_nearest_maps_are_exact(store):
    selection = store.select(layer=2, head=3)
    maps = selection.maps().values[:, 0, 0].reshape(len(selection), -1)
    frame = selection.nearest(maps[5].reshape(8, 8), 7)
    distance = cdist(maps[5:6], maps, "cosine")[0]
    order = np.argsort(distance, kind="stable")[:7]
    assert frame["row_id"].tolist() == selection.rows()["row_id"].to_numpy()[order].tolist()
    np.testing.assert_allclose(frame["similarity"], 1 - distance[order], atol=1e-6)
    assert frame["similarity"].iloc[0] == pytest.approx(1)
    others = store.nearest(maps[5].reshape(8, 8), layer=2, head=3, k=3, subject=2)
    assert others["subject"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("attention", "given", "message"),
    [
        (np.ones((8, 8)), {"layer": 1}, "one layer and head"),
        (np.ones((4, 8)), {"layer": 1, "head": 1}, "maps here have"),
        (np.zeros((8, 8)), {"layer": 1, "head": 1}, "is zero"),
    ],
)
def test_what_has_no_nearest_map_is_said(store, attention, given, message):
    with pytest.raises(UserError, match=message):
        store.select(**given).nearest(attention)
