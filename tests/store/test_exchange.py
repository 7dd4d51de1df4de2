from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pytest
import xarray

from tests.store.test_durability import files_no_longer_than
from tests.stores import make_store
from tssan_viz.errors import UserError
from tssan_viz.store import open_store
from tssan_viz.store.exchange import ENDINGS, export, import_run
from tssan_viz.store.verification import verify


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("exchange") / "store"
    make_store(path, subjects=3, cameras=(1,), frames=4, segments=2, heads=3)
    return open_store(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_comes_back_from_every_format(store, tmp_path, ending):
    selection = store.select(class_name=["reading", "drink water"])
    out = tmp_path / f"run{ending}"
    export(selection, out)
    into = open_store(tmp_path / "new", create=True)
    assert import_run(out, into) == "generated"
    back = into.select()
    np.testing.assert_array_equal(back.maps().values, selection.maps().values)
    pd.testing.assert_frame_equal(back.rows(), selection.rows(), check_dtype=False)
    pd.testing.assert_frame_equal(back.measures(), selection.measures(), check_dtype=False)
    assert back.catalogue == selection.catalogue
    assert into.info("generated") == store.info("generated")
    for name in selection.samples()["sample"]:
        if ending == ".parquet":
            continue
        old, new = store.sample(name), into.sample(name)
        assert new.class_name == old.class_name
        assert new.subject == old.subject
        for field in ("frames", "seconds", "poses", "present"):
            np.testing.assert_array_equal(getattr(new, field), getattr(old, field))
    assert verify(into).damaged == []
    assert import_run(out, into, run="again") == "again"
    assert into.run_names() == ["generated", "again"]


def test_what_is_missing_stays_missing(tmp_path):
    from tests.store.test_writing import SITES, open_writer, some_maps

    store = open_store(tmp_path / "s", create=True)
    with open_writer(store) as writer:
        rows = {
            "sample": ["a", "b"],
            "label": [None, 1],
            "subject": [None, 4],
            "correct": [None, True],
            "age": [31.5, None],
            "hand": [None, "left"],
        }
        writer.add(rows, some_maps(np.random.default_rng(0), 2, SITES))
    for ending in ENDINGS:
        out = tmp_path / f"run{ending}"
        export(store.select(), out)
        into = open_store(tmp_path / f"new{ending}", create=True)
        import_run(out, into)
        pd.testing.assert_frame_equal(into.rows("a"), store.rows("a"), check_dtype=False)


def test_part_of_the_layers_and_heads_is_a_run_of_its_own(store, tmp_path):
    selection = store.select(layer=2, head=[1, 3], subject=2)
    export(selection, tmp_path / "part.npz")
    into = open_store(tmp_path / "new", create=True)
    import_run(tmp_path / "part.npz", into)
    back = into.select()
    assert back.layers == (2,)
    assert back.heads == (1, 3)
    np.testing.assert_array_equal(back.maps().values, selection.maps().values)


def test_others_read_what_was_written(store, tmp_path):
    selection = store.select()
    expected = selection.maps().values
    export(selection, tmp_path / "run.nc")
    with xarray.open_dataset(tmp_path / "run.nc") as data:
        np.testing.assert_array_equal(data["attention"].values, expected)
        assert data["row_class_name"].values.tolist() == selection.rows()["class_name"].tolist()
    export(selection, tmp_path / "run.parquet")
    file = tmp_path / "run.parquet"
    database = duckdb.connect()
    answer = database.sql(
        f"select layer, head, avg(entropy) e, count(*) n from '{file}' group by all order by all"
    ).df()
    means = selection.measures().groupby(["layer", "head"])["entropy"].mean()
    np.testing.assert_allclose(answer["e"], means, rtol=1e-6)
    first = database.sql(
        f"select attention from '{file}' where layer = 2 and head = 3"
    ).fetchnumpy()
    np.testing.assert_array_equal(first["attention"][5].reshape(4, 4), expected[5, 1, 2])
    with np.load(export_to(selection, tmp_path / "run.npz")) as arrays:
        np.testing.assert_array_equal(arrays["attention"], expected.astype(np.float16))


def export_to(selection, out):
    export(selection, out)
    return out


def test_what_cannot_be_written_or_read_is_said(store, tmp_path):
    selection = store.select()
    with pytest.raises(UserError, match=r"not '\.xls'"):
        export(selection, tmp_path / "x.xls")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="there already"):
        export(selection, tmp_path / "x.npz")
    with pytest.raises(UserError, match="folder"):
        export(selection, tmp_path / "none" / "x.npz")
    with pytest.raises(UserError, match="nothing to write"):
        export(store.select(where="label > 99"), tmp_path / "y.npz")
    into = open_store(tmp_path / "new", create=True)
    for name in ("x.npz", "run.nc", "run.parquet"):
        (tmp_path / name).write_bytes(b"not one of ours")
        with pytest.raises(UserError, match="no run that `tssan-viz export` wrote"):
            import_run(tmp_path / name, into)
    np.savez(tmp_path / "other.npz", attention=np.zeros(3))
    with pytest.raises(UserError, match="no run that"):
        import_run(tmp_path / "other.npz", into)
    with pytest.raises(UserError, match="is not there"):
        import_run(tmp_path / "none.npz", into)
    assert into.run_names() == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_cannot_be_written_leaves_nothing(store, tmp_path, ending):
    out = tmp_path / f"run{ending}"
    with (
        files_no_longer_than(300),
        pytest.raises(UserError, match=f"run{ending} cannot be written"),
    ):
        export(store.select(), out)
    assert list(tmp_path.iterdir()) == []
    export(store.select(), out)
    assert list(tmp_path.iterdir()) == [out]
