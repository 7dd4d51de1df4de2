from __future__ import annotations

import shutil
import zlib

import lance
import numpy as np
import pytest

from tests.stores import make_catalogue, make_sites, make_store, measures_of, softmax_maps
from tssan_viz.errors import UserError
from tssan_viz.store import (
    Catalogue,
    Site,
    StoredSample,
    StoreNotFound,
    open_store,
)
from tssan_viz.store.schema import decode

CLASSES = ("put on jacket", "reading")
SITES = make_sites(2, 3, 5)


def half(rng, rows, site):
    return softmax_maps(rng, (rows, site.heads, site.query, site.key)).astype(np.float16)


def some_maps(rng, rows, sites=SITES):
    return {site.name: half(rng, rows, site) for site in sites}


def open_writer(store, run="a", sites=SITES, catalogue=None, **info):
    return store.writer(run, sites=sites, catalogue=catalogue or make_catalogue(CLASSES), info=info)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_values_come_back_bit_for_bit(store, rng):
    maps = some_maps(rng, 6)
    measures = {
        name: {s.name: measures_of(decode(maps[s.name]))[name] for s in SITES}
        for name in ("entropy", "peak")
    }
    with open_writer(store, seed=3) as writer:
        rows = {
            "sample": [f"v{i}" for i in range(6)],
            "label": [0, 1, 0, 1, 0, 1],
            "subject": np.arange(6),
            "camera": [1, 2, None, 1, 2, 3],
            "confidence": np.linspace(0, 1, 6),
            "correct": [True, False, None, True, True, True],
            "predicted": [0, 0, None, 1, 0, 1],
            "person": 1,
            "split": "test",
        }
        writer.add(rows, maps, measures)
        assert writer.rows_acknowledged == 0
        writer.flush()
        assert writer.rows_acknowledged == 6
    selection = open_store(store.url).select()
    ((frame, values),) = selection.iter_maps()
    assert values.dtype == np.float16
    for n, site in enumerate(SITES):
        np.testing.assert_array_equal(values[:, n].view(np.uint16), maps[site.name].view(np.uint16))
    assert frame["sample"].tolist() == rows["sample"]
    assert frame["class_name"].tolist() == ["put on jacket", "reading"] * 3
    assert frame["class_code"].tolist() == ["A014", "A011"] * 3
    assert frame["subject"].dtype == np.int32
    assert frame["camera"].isna().tolist() == [False, False, True, False, False, False]
    assert frame["correct"].isna().sum() == 1
    expected = [
        zlib.crc32(
            b"".join(
                zlib.crc32(maps[site.name][i, h].tobytes()).to_bytes(4, "little")
                for site in SITES
                for h in range(3)
            )
        )
        for i in range(6)
    ]
    assert frame["checksum"].tolist() == expected
    table = selection.measures()
    assert len(table) == 6 * 2 * 3
    for line in table.itertuples():
        i = rows["sample"].index(line.sample)
        site = SITES[line.layer - 1].name
        assert line.entropy == measures["entropy"][site][i, line.head - 1]
        assert line.peak == measures["peak"][site][i, line.head - 1]
    assert store.info("a") == {"seed": 3}


def test_the_caller_may_use_its_buffer_again(store, rng):
    maps = some_maps(rng, 2)
    before = {name: value.copy() for name, value in maps.items()}
    with open_writer(store) as writer:
        writer.add({"sample": ["v", "w"]}, maps)
        for value in maps.values():
            value[:] = 0
    np.testing.assert_array_equal(
        next(store.select(layer=1).iter_maps())[1][:, 0], before["blocks.0.attend"]
    )


def test_decoding_is_exact():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(decode(every), every.astype(np.float32))
    strided = every.reshape(256, 256)[:, ::2]
    np.testing.assert_array_equal(decode(strided), strided.astype(np.float32))


def test_samples_come_back(store, rng):
    full = StoredSample(
        "v0",
        1,
        "reading",
        "A011",
        4,
        2,
        frames=rng.random((3, 5)),
        seconds=rng.random((3, 5)),
        poses=rng.random((2, 3, 5, 25, 3)),
        present=rng.random((2, 3)) > 0.5,
        duplicate_of="v9",
    )
    bare = StoredSample("v1", None, None, None, None, None, frames=np.zeros((1, 5)))
    with open_writer(store) as writer:
        writer.add_samples([full, bare, full])
        writer.add({"sample": ["v0", "v1", "v2"], "segment": [1, 1, 2]}, some_maps(rng, 3))
    for sample in (full, bare):
        back = store.sample(sample.sample)
        for name in ("label", "class_name", "class_code", "subject", "camera", "duplicate_of"):
            assert getattr(back, name) == getattr(sample, name)
        for name in ("frames", "seconds", "poses", "present"):
            mine, theirs = getattr(sample, name), getattr(back, name)
            if mine is None:
                assert theirs is None
            else:
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)
    assert store.sample("v2").frames.tolist() == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(UserError, match="it holds v0, v1, v2"):
        store.sample("v33")
    assert lance.dataset(f"{store.url}/samples").count_rows() == 2


@pytest.mark.parametrize("factor", [0.5, 1.01, np.nan])
def test_rows_that_are_no_probabilities_are_refused(store, rng, factor):
    maps = some_maps(rng, 3)
    maps["blocks.1.attend"][1, 2, 4] *= np.float16(factor)
    with open_writer(store) as writer:
        with pytest.raises(UserError, match=r"'v1', site 'blocks.1.attend', head 3, query frame 4"):
            writer.add({"sample": ["v0", "v1", "v2"]}, maps)
        writer.flush()
    assert len(store.rows("a")) == 0


def test_signed_maps_need_no_sum(store, rng):
    site = Site("adj", 1, 2, 5, 5, kind="signed")
    value = rng.normal(size=(3, 2, 5, 5)).astype(np.float16)
    with open_writer(store, sites=(site,)) as writer:
        writer.add({"sample": ["a", "b", "c"]}, {"adj": value})
        with pytest.raises(UserError, match="not finite"):
            writer.add({"sample": ["d"]}, {"adj": value[:1] * np.float16(np.inf)})
    np.testing.assert_array_equal(next(store.select().iter_maps())[1][:, 0], value)
    assert store.select().maps().attrs["kind"] == "signed"


def test_sites_of_several_shapes_and_streams(store, rng):
    sites = (
        Site("enc", 1, 2, 5, 5, stream="encoder"),
        Site("dec", 1, 2, 3, 3, stream="decoder"),
        Site("cross", 1, 2, 3, 5, stream="cross"),
        Site("deep", 2, 2, 3, 3, stream="decoder"),
    )
    maps = some_maps(rng, 4, sites)
    with open_writer(store, sites=sites) as writer:
        writer.add({"sample": list("abcd")}, maps)
    cross = store.select(stream="cross").maps()
    assert cross.shape == (4, 1, 2, 3, 5)
    np.testing.assert_array_equal(cross.values[:, 0], decode(maps["cross"]))
    decoder = store.select(stream="decoder")
    np.testing.assert_array_equal(decoder.maps().sel(layer=2).values, decode(maps["deep"]))
    assert store.select().stream == "encoder"
    assert any("decoder" in note for note in store.select().notes)


def test_whether_a_prediction_is_right_need_not_be_said(store, rng):
    rows = {
        "sample": list("abcd"),
        "class_name": ["reading", "reading", None, "put on jacket"],
        "predicted": [1, 0, 1, None],
        "correct": [None, None, None, True],
    }
    with open_writer(store) as writer:
        writer.add(rows, some_maps(rng, 4))
    correct = store.rows("a")["correct"]
    assert correct.isna().tolist() == [False, False, True, False]
    assert correct.dropna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sample": ["a", "b"], "subjct": [1, 2]}, "did you mean 'subject'"),
        ({"sample": ["a", "b"], "head": [1, 2]}, r"no column 'head'\. Columns are step, "),
        ({"sample": ["a", "b"], "Subject": [1, 2]}, "did you mean 'subject'"),
        ({"sample": ["a", "b"], "a b": [1, 2]}, "no column 'a b'"),
        ({"sample": ["a", "b"], "age": [[1], [2]]}, "metadata are whole numbers"),
        ({"sample": ["a", "b"], "age": [1, "two"]}, "'age' cannot be stored"),
        ({"label": [0, 1]}, "'sample'"),
        ({"sample": ["a", "b"], "subject": [1]}, "differ in length"),
        ({"sample": ["a", "b"], "subject": ["x", "y"]}, "column 'subject'"),
        ({"sample": ["a", None]}, "no value in 1 rows"),
        ({"sample": ["a", "b"], "label": [0, 7]}, "no class with label 7"),
        ({"sample": ["a", "b"], "label": [0, 0], "class_name": ["reading"] * 2}, "label 0 is"),
        ({"sample": ["a", "a"]}, "came twice"),
        ({"sample": ["a", "b"], "row_id": [1, 2]}, "no column 'row_id'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_words(store, rng, rows, message):
    with open_writer(store) as writer, pytest.raises(UserError, match=message):
        writer.add(rows, some_maps(rng, 2))


def test_maps_that_do_not_fit_are_refused_in_words(store, rng):
    maps = some_maps(rng, 2)
    rows = {"sample": ["a", "b"]}
    with open_writer(store) as writer:
        with pytest.raises(UserError, match=r"nothing came from blocks.1.attend"):
            writer.add(rows, {"blocks.0.attend": maps["blocks.0.attend"]})
        with pytest.raises(UserError, match="other is no site"):
            writer.add(rows, {**maps, "other": maps["blocks.0.attend"]})
        with pytest.raises(UserError, match=r"\(r, h, q, s\) = \(2, 3, 5, 5\)"):
            writer.add(rows, {**maps, "blocks.0.attend": maps["blocks.0.attend"][:1]})
        with pytest.raises(UserError, match="float64, float16 is expected"):
            writer.add(rows, {k: v.astype(float) for k, v in maps.items()})
        with pytest.raises(UserError, match=r"measure 'peak'.*shape"):
            writer.add(rows, maps, {"peak": {s.name: np.zeros((2, 1)) for s in SITES}})
        with pytest.raises(UserError, match="cannot be the name"):
            writer.add(rows, maps, {"head": {s.name: np.zeros((2, 3)) for s in SITES}})
        writer.close()
        with pytest.raises(UserError, match="closed"):
            writer.add(rows, maps)


def test_sites_are_checked():
    with pytest.raises(UserError, match="at least 1"):
        Site("a", 0, 1, 2, 2)
    with pytest.raises(UserError, match="softmax, signed, adjacency"):
        Site("a", 1, 1, 2, 2, kind="tanh")


def test_two_sites_with_one_name_or_place_are_refused(store):
    with pytest.raises(UserError, match="same name"):
        open_writer(store, sites=(Site("a", 1, 1, 2, 2), Site("a", 2, 1, 2, 2)))
    with pytest.raises(UserError, match="same stream and layer"):
        open_writer(store, sites=(Site("a", 1, 1, 2, 2), Site("b", 1, 1, 2, 2)))
    with pytest.raises(UserError, match="no site"):
        open_writer(store, sites=())


def test_a_run_goes_on_where_it_stopped(store, rng):
    maps = some_maps(rng, 6)
    names = [f"v{i}" for i in range(6)]
    with open_writer(store) as writer:
        writer.add({"sample": names[:4]}, {k: v[:4] for k, v in maps.items()})
    created = store.runs()["created"][0]
    with open_writer(store) as writer:
        writer.add({"sample": names}, maps)
        assert writer.rows_skipped == 4
    assert writer.rows_acknowledged == 2
    assert store.rows("a")["sample"].tolist() == names
    np.testing.assert_array_equal(
        next(store.select(layer=2).iter_maps())[1][:, 0], maps["blocks.1.attend"]
    )
    assert store.runs()["created"].tolist() == [created]
    with open_writer(store) as writer:
        writer.add({"sample": names, "step": 100}, maps)
    assert len(store.rows("a")) == 12
    assert any("2 steps" in note for note in store.select().notes)


def test_a_run_does_not_go_on_with_something_else(store, rng):
    with open_writer(store, checkpoint_sha256="aaa") as writer:
        writer.add({"sample": ["v"]}, some_maps(rng, 1))
    with pytest.raises(UserError, match="other sites"):
        open_writer(store, sites=make_sites(2, 4, 5))
    with pytest.raises(UserError, match="another catalogue"):
        open_writer(store, catalogue=make_catalogue(("reading",)))
    with pytest.raises(UserError, match="another checkpoint"):
        open_writer(store, checkpoint_sha256="bbb")
    with open_writer(store, checkpoint_sha256="aaa"):
        pass


def test_one_process_at_a_time_writes_a_run(store, rng):
    with open_writer(store):
        with pytest.raises(UserError, match="being recorded"):
            open_writer(store)
        with open_writer(store, run="b"):
            pass
    with open_writer(store):
        pass


def test_what_was_added_before_a_failure_is_kept(store, rng):
    def fail():
        with open_writer(store) as writer:
            writer.add({"sample": ["v"]}, some_maps(rng, 1))
            raise RuntimeError("in the model")

    with pytest.raises(RuntimeError, match="in the model"):
        fail()
    assert store.rows("a")["sample"].tolist() == ["v"]


def test_commits_come_by_size_and_by_time(store, rng, monkeypatch):
    monkeypatch.setattr("tssan_viz.store.writer.COMMIT_BYTES", 2000)
    with open_writer(store) as writer:
        writer.add({"sample": ["a"]}, some_maps(rng, 1))
        assert writer.rows_acknowledged == 0
        writer.add({"sample": [f"b{i}" for i in range(20)]}, some_maps(rng, 20))
        assert writer.rows_acknowledged == 21
        monkeypatch.setattr("tssan_viz.store.writer.COMMIT_SECONDS", 0.0)
        writer.add({"sample": ["c"]}, some_maps(rng, 1))
        assert writer.rows_acknowledged == 22


def test_closing_merges_small_files(store, rng):
    with open_writer(store) as writer:
        for i in range(12):
            writer.add({"sample": [f"v{i}"]}, some_maps(rng, 1), None)
            writer.flush()
    for name in ("rows", "maps/a/5x5"):
        dataset = lance.dataset(f"{store.url}/{name}")
        assert len(dataset.get_fragments()) == 1
        assert dataset.count_rows() == 12
    assert len(lance.dataset(f"{store.url}/maps/a/5x5").versions()) == 1
    assert store.rows("a")["sample"].tolist() == [f"v{i}" for i in range(12)]


def test_reading_goes_on_while_a_recording_ends(store, rng):
    maps = some_maps(rng, 8)
    with open_writer(store) as writer:
        for i in range(8):
            writer.add({"sample": [f"v{i}"]}, {k: v[i : i + 1] for k, v in maps.items()})
            writer.flush()
        reader = open_store(store.url)
        selection = reader.select()
        before = selection.maps()
    # Its files were merged and dropped; the selection still answers.
    np.testing.assert_array_equal(selection.maps(), before)
    np.testing.assert_array_equal(before.sel(layer=1), decode(maps["blocks.0.attend"]))


def test_measures_may_differ_between_runs(store, rng):
    for run, name in (("a", "entropy"), ("b", "sharpness")):
        with open_writer(store, run=run) as writer:
            writer.add(
                {"sample": ["v"]},
                some_maps(rng, 1),
                {name: {s.name: np.ones((1, 3)) for s in SITES}},
            )
    assert "sharpness" not in store.select(run="a").measures()
    assert store.select(run="b").measures()["sharpness"].tolist() == [1.0] * 6
    assert "entropy" not in store.select(run="b").measures()


@pytest.mark.parametrize("run", ["a/b", "..", "a b", "ü%2F", "it's", ".hidden"])
def test_a_run_may_have_any_name(store, rng, run):
    with open_writer(store, run=run) as writer:
        writer.add({"sample": ["v"]}, some_maps(rng, 1))
    assert store.run_names() == [run]
    assert store.select(run=run).maps().shape[0] == 1
    outside = [p for p in store.path.parent.iterdir() if p != store.path]
    assert not outside
    assert len(list((store.path / "maps").iterdir())) == 1


@pytest.mark.parametrize("run", ["", " a", "a\n"])
def test_a_run_needs_a_name(store, run):
    with pytest.raises(UserError, match="name"):
        open_writer(store, run=run)


def test_a_run_without_class_names_gets_those_of_its_rows(store, rng):
    with open_writer(store, catalogue=Catalogue("mine", ())) as writer:
        rows = {"sample": ["u", "v"], "label": [3, 1], "class_name": ["jump", "run"]}
        writer.add(rows, some_maps(rng, 2))
    assert [entry.name for entry in store.catalogue("a").classes] == ["run", "jump"]
    assert store.select(class_name="Jump").samples()["sample"].tolist() == ["u"]


def test_the_store_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TSSAN_STORE", raising=False)
    with pytest.raises(StoreNotFound, match="tssan-viz demo"):
        open_store()
    open_store(create=True)
    assert open_store().url == "attention-store"
    monkeypatch.setenv("TSSAN_STORE", str(tmp_path / "elsewhere"))
    with pytest.raises(StoreNotFound, match=r"elsewhere \(from \$TSSAN_STORE\)"):
        open_store()
    with pytest.raises(UserError, match="a store is a folder, or s3://BUCKET/NAME"):
        open_store("gs://bucket/store")
    assert open_store(f"file://{tmp_path}/attention-store").runs().empty


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        open_store(tmp_path, create=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_later_format_is_refused(tmp_path):
    open_store(tmp_path / "s", create=True)
    (tmp_path / "s" / "store.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 99, which a newer tssan-viz reads"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text('{"format": 99, "written_by": "7.1"}')
    with pytest.raises(UserError, match=r"format 99, which tssan-viz 7\.1 or later reads"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text("not json")
    with pytest.raises(UserError, match="cannot be read"):
        open_store(tmp_path / "s")


def test_the_runs_table(tmp_path):
    store = make_store(tmp_path / "s", subjects=3, cameras=(1,), replications=(1,), frames=4)
    make_store(tmp_path / "s", subjects=2, cameras=(1,), frames=4, run="second", split="train")
    runs = store.runs()
    assert runs["run"].tolist() == ["generated", "second"]
    first = runs.iloc[0]
    assert (first["rows"], first["samples"], first["classes"], first["subjects"]) == (12, 12, 4, 3)
    assert (first["cameras"], first["sites"], first["heads"]) == (1, 2, 4)
    assert first["splits"] == ("test",)
    assert first["accuracy"] == store.rows("generated")["correct"].mean()
    assert store.latest_run() == "second"
    sites = store.sites("generated")
    assert sites["layer"].tolist() == [1, 2]
    assert sites["name"].tolist() == ["blocks.0.attend", "blocks.1.attend"]


def test_a_store_made_anew_at_the_same_place_is_seen(tmp_path):
    import shutil

    sizes = []
    store = make_store(tmp_path / "s", subjects=2, cameras=(1,), replications=(1,), frames=4)
    sizes.append(len(store.select()))
    shutil.rmtree(tmp_path / "s")
    make_store(tmp_path / "s", subjects=3, cameras=(1,), replications=(1,), frames=4, seed=1)
    sizes.append(len(store.select()))
    assert sizes == [8, 12]
    assert store.select().maps().shape[0] == 12


def test_further_metadata_are_columns(store, rng):
    rows = {
        "sample": list("abc"),
        "age": [31, None, 40],
        "hand": ["left", "right", None],
        "weight": np.array([61.5, 70, 55], np.float32),
        "trained": [True, False, True],
        "site_of_study": "Bern",
        "nothing": None,
    }
    with open_writer(store) as writer:
        writer.add(rows, some_maps(rng, 3))
    with open_writer(store, run="b") as writer:
        writer.add({"sample": ["x"], "age": [50], "dose": [2]}, some_maps(rng, 1))
    with open_writer(store) as writer:
        writer.add({"sample": ["d"], "weight": [80]}, some_maps(rng, 1))
    frame = open_store(store.url).rows("a")
    assert frame["age"].tolist()[::2] == [31, 40]
    assert frame["age"].isna().tolist() == [False, True, False, True]
    assert frame["hand"].tolist()[:2] == ["left", "right"]
    assert frame["weight"].tolist() == [61.5, 70.0, 55.0, 80.0]
    assert frame["trained"].tolist()[:3] == [True, False, True]
    assert frame["site_of_study"].tolist()[:3] == ["Bern"] * 3
    assert not {"nothing", "dose"} & set(frame.columns)
    assert set(store.rows("b").columns) - set(frame.columns) == {"dose"}
    assert store.select(run="a", where="age > 30 AND hand = 'left'").rows()["sample"].tolist() == [
        "a"
    ]
    with open_writer(store) as writer, pytest.raises(UserError, match="int64 in the store"):
        writer.add({"sample": ["e"], "age": ["old"]}, some_maps(rng, 1))


def test_a_masked_query_is_a_row_of_zeros(store, rng):
    maps = some_maps(rng, 2)
    maps["blocks.0.attend"][1, :, 3:] = 0
    with open_writer(store) as writer:
        writer.add({"sample": ["a", "b"]}, maps)
        maps["blocks.0.attend"][0, 1] = 0
        with pytest.raises(UserError, match=r"'c', site 'blocks.0.attend', head 2, query frame 0"):
            writer.add({"sample": ["c", "d"]}, maps)
    assert not store.select(layer=1).maps().values[1, 0, :, 3:].any()


@pytest.mark.parametrize("run", ["r" * 300, "ü" * 60])
def test_a_name_too_long_for_a_folder_is_refused(store, run):
    with pytest.raises(UserError, match="too long"):
        open_writer(store, run=run)
    with open_writer(store, run="r" * 255):
        pass


def test_a_store_of_an_older_format_is_read_but_not_added_to(store, rng):
    with open_writer(store) as writer:
        writer.add({"sample": ["a"]}, some_maps(rng, 1))
    make_first_format(store.path, "maps/a/5x5")
    old = open_store(store.url)
    assert old.rows("a")["rank"].tolist() == [0]
    assert old.select().maps().shape == (1, 2, 3, 5, 5)
    assert old.select().measures().shape[0] == 6
    assert old.stored_code("a") == "float16"
    with pytest.raises(UserError, match=r"older store format 1.*tssan-viz merge"):
        open_writer(old, run="b")


def make_first_format(path, *maps):
    """Turn a store into what the first format wrote: no ranks, codes, digests, map checksums."""
    for name, columns in (
        ("rows", ["rank"]),
        ("measures", ["rank"]),
        ("runs", ["code"]),
        *((folder, ["checksums"]) for folder in maps),
    ):
        dataset = lance.dataset(path / name)
        dataset.drop_columns(columns)
        shutil.rmtree(path / name / "_digests")
    (path / "store.json").write_text('{"format": 1, "kind": "tssan-viz attention store"}')
