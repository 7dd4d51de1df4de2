"""The ES module: its sources, its bundle, its colours, its plain functions."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tssan_viz.views import module_path
from tssan_viz.views.schema import head_module_path

HERE = Path(__file__).parent
SOURCES = module_path().parent.parent / "js"
NODE = shutil.which("node")


def needs_node() -> str:
    if NODE is None:
        pytest.skip("node is not installed: it is needed only by who changes the front end")
    return NODE


def test_the_bundle_is_what_the_sources_give(tmp_path: Path) -> None:
    needs_node()
    if not (SOURCES / "node_modules" / ".bin" / "esbuild").exists():
        pytest.skip(
            "esbuild is not installed: run `npm install --no-package-lock` in tssan_viz/views/js"
        )
    script = json.loads((SOURCES / "package.json").read_text())["scripts"]["build"]
    command = re.sub(r"--outdir=\S+", f"--outdir={tmp_path}", script).split()
    command[0] = str(SOURCES / "node_modules" / ".bin" / command[0])
    subprocess.run(command, cwd=SOURCES, check=True, capture_output=True)
    for path in (module_path(), head_module_path()):
        assert (tmp_path / path.name).read_text() == path.read_text(), (
            "run `npm run build` in tssan_viz/views/js"
        )


@pytest.mark.parametrize("path", [module_path(), head_module_path()], ids=lambda path: path.name)
def test_a_module_is_one_file_that_asks_for_no_other(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"https?://", text)
    assert not re.search(
        r"\bimport\s*[({\"'*]|\bfetch\(|XMLHttpRequest|\beval\(|innerHTML|new Function", text
    )


def test_pages_have_room_for_their_script() -> None:
    most = 40_000  # a page has 60 KB beside its data, and this is most of them
    assert len(base64.b64encode(gzip.compress(module_path().read_bytes()))) < most
    plain = head_module_path().read_text()
    assert len(plain.encode()) < most
    # It stands in the page as it is: nothing of it may end the element or begin a comment there.
    assert not re.search(r"</script|<script|<!--", plain, re.IGNORECASE)


def test_no_lock_file_names_a_registry() -> None:
    assert not list(SOURCES.glob("*lock*"))
    pinned = json.loads((SOURCES / "package.json").read_text())["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pinned.values())


def test_plain_functions_agree_with_numpy(tmp_path: Path) -> None:
    node = needs_node()
    np.arange(65536, dtype=np.uint16).view("<f2").astype("<f4").tofile(tmp_path / "float32.bin")
    (tmp_path / "attention.json").write_text(json.dumps(attention_fixture()))
    result = subprocess.run(
        [node, "--test", *map(str, sorted((HERE / "js").glob("*.test.mjs")))],
        env={**os.environ, "TSSAN_FIXTURES": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def attention_fixture() -> dict:
    """Weights and numpy's answers to the questions that the view asks of them."""
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.full(7, 0.3), size=(3, 5)).astype(np.float16).astype(np.float32)
    cases = []
    for heads in ([0, 1, 2], [1], [0, 2]):
        for focus in (None, {"side": "query", "frame": 3}, {"side": "key", "frame": 6}):
            chosen = weights[heads]
            if focus is None:
                masked, per_frame = chosen, chosen.mean(axis=1)
            elif focus["side"] == "query":
                per_frame = chosen[:, focus["frame"]]
                masked = np.where(np.arange(5)[:, None] == focus["frame"], chosen, 0)
            else:
                per_frame = chosen[:, :, focus["frame"]]
                masked = np.where(np.arange(7) == focus["frame"], chosen, 0)
            for limit in (4, 4000):
                order = np.argsort(masked, axis=None, kind="stable")[::-1]
                places = [np.unravel_index(i, masked.shape) for i in order[:limit]]
                lines = [[heads[h], int(q), int(s)] for h, q, s in places if masked[h, q, s] > 0]
                cases.append(
                    {
                        "heads": heads,
                        "focus": focus,
                        "limit": limit,
                        "lines": lines,
                        "perFrame": per_frame.tolist(),
                        "mean": per_frame.mean(axis=0).tolist(),
                    }
                )
    return {"size": list(weights.shape), "weights": weights.ravel().tolist(), "cases": cases}


@pytest.mark.parametrize(("constant", "name"), [("VIRIDIS", "viridis"), ("RDBU", "RdBu_r")])
def test_maps_have_matplotlibs_own_colours(constant: str, name: str) -> None:
    source = (SOURCES / "colour-maps.js").read_text()
    table = re.search(rf"export const {constant} =(.*?);", source, re.DOTALL)
    assert table is not None
    colours = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    assert "".join(re.findall(r'"([0-9a-f]+)"', table[1])) == colours.tobytes().hex()


def test_head_colours_differ_for_every_eye_and_stand_out_from_any_paper() -> None:
    source = (SOURCES / "colours.js").read_text()
    table = re.search(r"HEAD_COLOURS = \[(.*?)\];", source, re.DOTALL)
    assert table is not None
    colours = [bytes.fromhex(code) for code in re.findall(r'"#(\w{6})"', table[1])]
    rgb = np.array([list(colour) for colour in colours]) / 255
    assert len(rgb) == 16
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (luminance + 0.05)).min() >= 1.95, "on white"
    assert ((luminance + 0.05) / (0.0097 + 0.05)).min() >= 2.4, "on #16191e"
    for name, seen in seen_by(linear).items():
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert apart[:8, :8].min() > 0.12, name
        assert apart.min() > 0.05, name


def seen_by(linear: np.ndarray) -> dict[str, np.ndarray]:
    """Linear RGB in OKLab (Ottosson 2020), for usual and for colour-blind eyes (Machado 2009)."""
    vision = {
        "usual": np.eye(3),
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        "deutan": [[0.3673, 0.8607, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    }
    cones = np.array(
        [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    )
    lab = np.array(
        [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    )
    return {
        name: np.cbrt(np.clip(linear @ np.transpose(matrix), 0, 1) @ cones.T) @ lab.T
        for name, matrix in vision.items()
    }
