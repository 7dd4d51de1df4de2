"""Exported networks say the same as ours, and only what passed the comparison gets its name."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tssan.building import build_network
from tssan.errors import DataError
from tssan.export import export_network
from tssan.network import SkeletonNetwork
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe
from typer.testing import CliRunner

from tssan_viz.cli import app

SMALL = Recipe(
    name="small",
    clips=ClipsRecipe(frames=16, segments=2),
    network=NetworkRecipe(layers=2, heads=4, width=16),
)


def build(**network) -> tuple[SkeletonNetwork, Recipe]:
    made = replace(SMALL, network=replace(SMALL.network, **network))
    torch.manual_seed(0)
    return build_network(made, joints=7, coordinates=3, classes=5), made


def export(network: SkeletonNetwork, made: Recipe, out: Path):
    return export_network(network, made, out, joints=7, coordinates=3)


def test_onnx_runs_without_us_on_any_number_of_samples(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    network, made = build(variant="san-v3", v3_score="mean", layers=1)
    written = export(network, made, tmp_path / "san.onnx")
    assert written.difference is not None
    assert written.difference <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["san.onnx"]
    assert written.size == written.path.stat().st_size
    onnx.checker.check_model(written.path)
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["position", "motion"]
    for n in (1, 4, 9):
        position, motion = torch.randn(2, n, 2, 2, 16, 7, 3).unbind()
        (logits,) = session.run(None, {"position": position.numpy(), "motion": motion.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(position, motion), atol=1e-4)


def test_torch_export_runs_with_who_is_present(tmp_path: Path) -> None:
    network, made = build(mask_absent_person=True, norm="pre", layers=1)
    written = export(network, made, tmp_path / "san.pt2")
    assert written.difference is not None
    assert written.difference <= 1e-6
    assert written.inputs == {
        "position": ("n", 2, 2, 16, 7, 3),
        "motion": ("n", 2, 2, 16, 7, 3),
        "present": ("n", 2, 2),
    }
    module = torch.export.load(written.path).module()
    position, motion = torch.randn(2, 7, 2, 2, 16, 7, 3).unbind()
    present = torch.rand(7, 2, 2) < 0.5
    with torch.no_grad():
        torch.testing.assert_close(
            module(position, motion, present), network(position, motion, present), atol=1e-6, rtol=0
        )


def test_a_file_that_says_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tssan.export

    out = tmp_path / "san.pt2"
    out.write_bytes(b"what was there before")
    monkeypatch.setattr(
        tssan.export, "_open_program", lambda path: lambda *inputs: torch.ones(len(inputs[0]), 5)
    )
    with pytest.raises(DataError, match=r"logits differ by .* more than 1e-06; nothing was writ"):
        export(*build(), out)
    assert [path.name for path in tmp_path.iterdir()] == ["san.pt2"]
    assert out.read_bytes() == b"what was there before"


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named_with_the_way_to_get_them(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(DataError, match=rf"needs the package {package}: pip install .*onnx"):
        export(*build(), tmp_path / "san.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_the_file_is_written_and_said_to_be_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    network, made = build(encoder="ff", ff_dim=8, layers=1)
    assert export(network, made, tmp_path / "san.onnx").difference is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("san.pth", r"expected a name that ends in \.onnx, or in \.pt2 for torch\.export"),
        ("gone/san.onnx", "does not exist"),
        ("folder.onnx", "is a folder; expected the name of a file"),
    ],
)
def test_wrong_names_are_refused(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(DataError, match=says):
        export(*build(), tmp_path / name)


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(DataError, match=r"cannot write .*san\.pt2: No space left on device"):
        export(*build(), tmp_path / "san.pt2")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as `train` leaves it, with weights that nobody trained."""
    import json

    import yaml

    network, made = build()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(made.to_dict()))
    results = {"joints": 7, "coordinates": 3, "classes": ["a", "b", "c", "d", "e"], "seed": 0}
    (folder / "results.json").write_text(json.dumps(results))
    save_file(network.state_dict(), folder / "checkpoint.safetensors")
    return folder


def test_command_says_what_goes_in_and_comes_out(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "san.pt2"
    ran = CliRunner().invoke(app, ["export-network", str(run), "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "position  float32 (n, 2, 2, 16, 7, 3)" in ran.output
    assert "logits    float32 (n, 5)" in ran.output
    assert "checked: its logits differ from the network's by 0.0e+00 at most" in ran.output
    assert out.is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {"variant": "san-v1"},
        {"variant": "san-v1", "encoder": "ff", "position_embedding": "sinusoidal"},
        {"variant": "san-v2", "consensus": "max"},
        {"variant": "san-v3", "v3_person_fusion": "post", "mask_absent_person": True},
        {"variant": "san-v3", "consensus_of": "probabilities", "encoder_batch_norm": True},
    ],
)
@pytest.mark.parametrize(("name", "tolerance"), [("san.onnx", 1e-4), ("san.pt2", 1e-6)])
def test_every_variant_exports(network: dict, name: str, tolerance: float, tmp_path: Path) -> None:
    written = export(*build(**network), tmp_path / name)
    assert written.difference is not None
    assert written.difference <= tolerance
