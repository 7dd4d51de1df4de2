"""What the views are given is what the store holds."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.stores import make_sites, make_store
from tssan_viz.errors import UserError
from tssan_viz.store import Catalogue, ClassEntry, StoredSample, open_store
from tssan_viz.views import head_view_payload, heatmaps_payload, page, save_html
from tssan_viz.views.html import json_for_script


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    """Three segments of two persons."""
    path = tmp_path_factory.mktemp("views") / "store"
    return make_store(path, subjects=2, cameras=(1,), replications=(1,), segments=3, persons=2)


def block(text: str, name: str) -> str:
    """Return the text of a page's script element as a browser's parser delimits it."""

    class Reader(HTMLParser):
        inside = False
        text = ""

        def handle_starttag(self, tag: str, attrs: list) -> None:
            self.inside = tag == "script" and dict(attrs).get("id") == name

        def handle_data(self, data: str) -> None:
            self.text += data if self.inside else ""

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

    reader = Reader()
    reader.feed(text)
    return reader.text


def saved_values(path: Path) -> tuple[dict, np.ndarray]:
    values = json.loads(block(path.read_text(), "payload"))
    manifest = values["manifest"]
    maps = np.frombuffer(base64.b64decode(values["maps"]), manifest["maps"]["dtype"])
    return manifest, maps.reshape(manifest["maps"]["shape"])


def test_a_saved_page_holds_the_stores_bits(store, tmp_path: Path) -> None:
    sample = store.select().samples()["sample"].iloc[3]
    path = save_html(store.select(), tmp_path / "new" / "view.html", sample)
    manifest, maps = saved_values(path)
    assert manifest["sample"] == sample
    rows, stored = next(store.select(sample=sample).iter_maps())
    assert maps.dtype == np.dtype("<f2")
    assert maps.shape == (3, 2, *stored.shape[1:])
    for (_, row), value in zip(rows.iterrows(), stored, strict=True):
        seen = maps[row["segment"] - 1, row["person"] - 1]
        assert (seen.view("u2") == value.view("u2")).all()
    assert path.stat().st_size <= 2.8 * maps.size + 60_000


def test_the_manifest_says_what_was_recorded(store) -> None:
    first = store.select().samples().iloc[0]
    payload = head_view_payload(store.select())
    manifest = payload.manifest
    assert manifest["view"] == "head"
    assert manifest["schema"] == 1
    assert manifest["sample"] == first["sample"]
    assert manifest["class_name"] == first["class_name"]
    assert manifest["predicted_name"] == first["predicted_name"]
    assert manifest["correct"] == bool(first["correct"])
    assert (manifest["layers"], manifest["heads"]) == ([1, 2], [1, 2, 3, 4])
    assert (manifest["segments"], manifest["persons"]) == ([1, 2, 3], [1, 2])
    assert manifest["present"] == [[True, True]] * 3
    assert manifest["labels"][0][:3] == ["0", "3", "5"]
    assert manifest["seconds"][1][0] == pytest.approx(16 * 2.5 / 30, abs=1e-3)
    assert len(manifest["sides"]) == 25
    json.dumps(manifest, allow_nan=False)


def test_poses_are_centred_and_otherwise_as_stored(store) -> None:
    selection = store.select()
    payload = head_view_payload(selection)
    stored = selection.sample(payload.manifest["sample"]).poses
    poses = np.frombuffer(payload.buffers["poses"], "<f2").reshape(
        payload.manifest["poses"]["shape"]
    )
    assert poses.shape == stored.shape
    assert np.abs(poses.astype(np.float32).mean(axis=(0, 1, 2, 3))).max() < 1e-3
    moved = poses.astype(np.float32) - stored
    assert np.ptp(moved.reshape(-1, 3), axis=0).max() < 2e-3


def test_a_narrowed_selection_shows_no_more_than_was_asked_for(store) -> None:
    selection = store.select(class_name="reading", layer=2, head=[2, 4], segment=3, person=2)
    manifest = head_view_payload(selection).manifest
    assert manifest["layers"] == [2]
    assert manifest["heads"] == [2, 4]
    assert (manifest["segments"], manifest["persons"]) == ([3], [2])
    assert manifest["maps"]["shape"] == [1, 1, 1, 2, 16, 16]
    assert manifest["labels"][0][0] == "80"
    assert manifest["class_name"] == "reading"


def test_what_is_not_there_is_said(store) -> None:
    with pytest.raises(UserError, match="nothing to show"):
        head_view_payload(store.select(subject=1).select(subject=2))
    with pytest.raises(UserError, match="S001"):
        head_view_payload(store.select(), "S001C001P001R001A01")


def test_absent_persons_fused_persons_and_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sites = make_sites(1, 2, 4)
    catalogue = Catalogue("made", (ClassEntry(0, "<b>one</b>"),), None, None)
    store = open_store(tmp_path / "store", create=True)
    maps = rng.dirichlet(np.ones(4), size=(5, 2, 4)).astype(np.float16)
    with store.writer("run", sites=sites, catalogue=catalogue, info={}) as writer:
        common = {"label": 0, "class_name": "<b>one</b>"}
        for i, (sample, segment, person, step) in enumerate(
            [
                ("a", 1, 1, 0),
                ("a", 2, 1, 0),
                ("a", 2, 2, 0),
                ("fused", 1, None, 0),
                ("fused", 1, None, 5),
            ]
        ):
            row = {**common, "sample": sample, "segment": segment, "person": person, "step": step}
            writer.add(
                {name: [value] for name, value in row.items()}, {sites[0].name: maps[i : i + 1]}
            )
        writer.add_samples(
            [StoredSample("a", 0, "<b>one</b>", None, None, None, np.zeros((2, 4), np.float32))]
        )
    a = head_view_payload(store.select(sample="a"))
    assert a.manifest["present"] == [[True, False], [True, True]]
    assert a.manifest["poses"] is None
    assert a.manifest["seconds"] is None
    assert a.manifest["predicted_name"] is None
    values = np.frombuffer(a.buffers["maps"], "<f2").reshape(a.manifest["maps"]["shape"])
    assert not values[0, 1].any()
    assert (values[1, 1, 0] == maps[2]).all()
    fused = head_view_payload(store.select(sample="fused"))
    assert fused.manifest["fused"]
    assert fused.manifest["persons"] == [1]
    assert (np.frombuffer(fused.buffers["maps"], "<f2") == maps[4].ravel()).all()


@given(st.text(), st.sampled_from(["</script>", "<!--", "<script>", "&lt;", "\u2028", "]]>"]))
def test_no_text_leaves_its_script_element(text: str, nasty: str) -> None:
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text of any file
    values = {"label": text + nasty + text}
    written = json_for_script(values)
    assert not re.search("[<>&]", written)
    assert json.loads(written) == values


def test_titles_are_escaped(store) -> None:
    payload = head_view_payload(store.select())
    payload.manifest["class_name"] = "</title><script>alert(1)</script>"
    text = page(payload)
    assert "<script>alert" not in text
    assert "&lt;/title&gt;" in text
    assert json.loads(block(text, "payload"))["manifest"]["class_name"].startswith("</title>")


@settings(max_examples=30)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.floats(-1, 1, width=16),
    )
)
def test_heat_maps_keep_their_values(maps: np.ndarray) -> None:
    kinds = ["div" if i % 2 else "seq" for i in range(len(maps))]
    payload = heatmaps_payload(maps, [f"map {i}" for i in range(len(maps))], kinds)
    meta = payload.manifest["maps"]
    assert meta["dtype"] == ("f2" if maps.dtype == np.float16 else "f4")
    assert meta["shape"] == list(maps.shape)
    seen = np.frombuffer(payload.buffers["maps"], "<" + meta["dtype"]).reshape(maps.shape)
    assert (seen == maps).all()


def test_heat_maps_refuse_what_cannot_be_drawn() -> None:
    good = np.zeros((2, 3, 3))
    with pytest.raises(ValueError, match=r"\(n, q, s\)"):
        heatmaps_payload(good[0], ["a"])
    with pytest.raises(ValueError, match="2 maps"):
        heatmaps_payload(good, ["a"])
    with pytest.raises(ValueError, match="'log'"):
        heatmaps_payload(good, ["a", "b"], ["seq", "log"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="not finite"):
        heatmaps_payload(good * np.nan, ["a", "b"])


def test_pages_are_made_without_torch_and_without_widgets(store, tmp_path: Path) -> None:
    code = (
        "import sys, tssan_viz\n"
        f"selection = tssan_viz.open_store({store.url!r}).select()\n"
        f"tssan_viz.save_html(selection, {str(tmp_path / 'view.html')!r})\n"
        "print([m for m in ('torch', 'anywidget', 'matplotlib', 'dash') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
