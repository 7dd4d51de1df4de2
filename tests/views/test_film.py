"""The player's film, read back by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tssan_viz
from tests.stores import make_store
from tssan_viz.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("film") / "store"
    return make_store(path, subjects=1, cameras=(1,), replications=(1,), persons=2)


def test_a_gif_has_every_frame_and_the_locked_querys_bars(store, tmp_path: Path) -> None:
    widget = tssan_viz.player(
        store.select(), layer=2, heads=[1], locked={"side": "query", "frame": 3}
    )
    path = widget.save(tmp_path / "films" / "player.gif", fps=10)
    row = store.select(layer=2, head=1).maps().values[0, 0, 0, 3].astype(np.float32)
    with Image.open(path) as film:
        assert film.n_frames == 16
        film.seek(int(row.argmax()))
        picture = np.asarray(film.convert("RGB")).astype(int)
        assert film.info["duration"] == 100
    accent = np.abs(picture - [29, 95, 209]).sum(axis=-1) < 60
    bars = accent[424:]  # below the skeleton
    columns = np.flatnonzero(bars.any(axis=0))
    place = 8 + (int(row.argmax()) + 0.5) * (420 - 16) / 16
    assert abs(columns.mean() - place) < 3, "the strongest frame's bar is lit when it is shown"
    assert accent[:420].any(), "and so is its skeleton"
    assert not list(path.parent.glob(".*"))


def test_what_is_no_film_is_said(store, tmp_path: Path) -> None:
    widget = tssan_viz.player(store.select())
    with pytest.raises(UserError, match=r"a \.gif or an \.mp4"):
        widget.save(tmp_path / "player.avi")
    widget.heads = []
    with pytest.raises(UserError, match="no head is on"):
        widget.save(tmp_path / "player.gif")
    assert not list(tmp_path.iterdir())


def test_an_mp4_has_every_frame(store, tmp_path: Path) -> None:
    reader = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg writes MP4")
    path = tssan_viz.player(store.select()).save(tmp_path / "player.mp4")
    frames, seconds = reader.count_frames_and_secs(str(path))
    assert frames == 16
    assert seconds == pytest.approx(1.6, abs=0.05)
