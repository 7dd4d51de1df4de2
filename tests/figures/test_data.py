"""What Figure 5 shows where there is more than frames of test videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from tests.stores import make_catalogue, make_poses, make_sites, make_store, softmax_maps
from tssan_viz.figures import figure5, figure5_data
from tssan_viz.store import StoredSample, open_store


def test_a_chosen_subject_is_still_shown_in_test_videos(tmp_path: Path) -> None:
    """In a cross-view protocol one subject is in both splits."""
    names = {}
    for split, camera in (("train", 1), ("test", 2)):
        store = make_store(
            tmp_path / "store", subjects=2, cameras=(camera,), layers=1, run=split, split=split
        )
        names[split] = set(store.select(run=split).samples()["sample"])
    with store.writer(
        "both", sites=make_sites(1, 4, 16), catalogue=make_catalogue(["reading"]), info={}
    ) as writer:
        for run in ("train", "test"):
            chosen = store.select(run=run, class_name="reading", replication=1)
            rows = chosen.rows()
            maps = np.concatenate([maps for _, maps in chosen.iter_maps()])
            writer.add_samples([chosen.sample(name) for name in rows["sample"]])
            columns = ("sample", "class_name", "subject", "camera", "split", "segment", "person")
            writer.add(
                {
                    **{name: rows[name].tolist() for name in columns},
                    "label": [0] * len(rows),
                    "step": 0,
                    "phase": "inference",
                },
                {"blocks.0.attend": maps[:, 0]},
            )
    data = figure5_data(store, "reading", run="both", subject=2)
    assert [video.subject for video in data.videos] == [2]
    assert {video.sample for video in data.videos} <= names["test"]


@pytest.mark.parametrize("style", ["lines", "heat"])
def test_tokens_that_are_no_frames_are_numbered_and_get_no_pose(tmp_path: Path, style: str) -> None:
    rng = np.random.default_rng(0)
    store = open_store(tmp_path / "store", create=True)
    samples = ["first", "second"]
    with store.writer(
        "pooled", sites=make_sites(1, 2, 8), catalogue=make_catalogue(["reading"]), info={}
    ) as writer:
        writer.add_samples(
            [
                StoredSample(
                    name, 0, "reading", "A011", n, 1,
                    frames=10.0 * np.arange(6)[None], poses=make_poses(rng, 1, 1, 6),
                )
                for n, name in enumerate(samples)
            ]
        )  # fmt: skip
        writer.add(
            {
                "sample": samples,
                "label": [0, 0],
                "class_name": ["reading"] * 2,
                "subject": [0, 1],
                "segment": [1, 1],
                "person": [1, 1],
                "split": "test",
                "step": 0,
                "phase": "inference",
            },
            {"blocks.0.attend": softmax_maps(rng, (2, 2, 8, 8)).astype(np.float16)},
        )
    data = figure5_data(store, "reading")
    assert data.videos[0].poses is None
    table = data.table()
    assert table["query"].max() == 7
    assert table[["query_frame", "key_frame"]].isna().all(axis=None)
    words = [text.get_text() for axes in figure5(data, style=style).axes for text in axes.texts]
    assert "50" not in words
    assert any(word.split()[-1:] == ["7"] for word in words)


@pytest.mark.parametrize("style", ["lines", "heat"])
def test_all_words_can_be_read_on_white_paper(small_store, style: str) -> None:
    def light(colour: str) -> float:
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for text in figure5(small_store, style=style).findobj(Text):
        if text.get_text():
            # The contrast that WCAG 2 asks for.
            assert 1.05 / (light(text.get_color()) + 0.05) >= 4.5, text.get_text()
