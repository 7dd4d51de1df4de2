"""`tssan-viz train` as it is typed: what it prints, what it refuses, what Ctrl-C leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tssan.building import build_network
from tssan.training import TrainedRun

from tests.training import toy
from tssan_viz.cli import main
from tssan_viz.cli.train import _print_outcome


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "toy"
    toy.make(out)
    return out


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "toy.yaml"
    path.write_text(yaml.safe_dump(toy.RECIPE.to_dict()))
    return path


def command(*arguments: object) -> list[str]:
    code = "from tssan_viz.cli import main; main()"
    return [sys.executable, "-c", code, "train", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, check=False
    )


def test_train_prints_accuracy_seed_time_and_the_next_command(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(recipe, "--data", data, "--out", out, "--seed", 5, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 5
    assert results["epochs"] == 2
    first, *_, last = done.stdout.splitlines()
    assert first.startswith(f"test accuracy {100 * results['test_accuracy']:.1f} % (")
    assert f"{results['test_correct']} of 54 sequences), toy cross-subject" in first
    assert "seed 5" in first
    assert " s of training on " in first
    assert "held-out part of the training subjects" in done.stdout
    assert last == f"next: tssan-viz record --run {out} --data {data}"
    assert "Traceback" not in done.stderr
    assert "lightning" not in done.stderr.lower()

    again = run(recipe, "--data", data, "--out", out)
    assert again.returncode == 2
    assert "finished run already" in again.stderr
    assert "Traceback" not in again.stderr


def test_options_override_the_recipe(data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--protocol", "cross-view", "--epochs", 1, "--set", "training.learning_rate=1e-3")
    more = ("--validation-subjects", "5,6", "--precision", "bf16", "--no-test")
    done = run(recipe, "--data", data, "--out", out, *options, *more)
    assert done.returncode == 0, done.stderr
    first, second, _ = done.stdout.splitlines()
    assert first.startswith("the test part was left alone (--no-test), toy cross-view")
    assert second.startswith("held-out training subjects 5, 6: ")
    used = yaml.safe_load((out / "recipe.yaml").read_text())
    assert used["protocol"] == "cross-view"
    assert used["training"]["learning_rate"] == 0.001
    assert used["training"]["validation_subjects"] == [5, 6]
    results = json.loads((out / "results.json").read_text())
    assert results["precision"] == "bf16"
    assert results["command"] == shlex.join(
        ["tssan-viz", "train", *map(str, (recipe, "--data", data, "--out", out, *options, *more))]
    )


def test_the_papers_protocol_is_named_beside_its_number(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(recipe, "--data", data, "--out", out, "--epochs", 1, "--paper-protocol")
    assert done.returncode == 0, done.stderr
    first, _ = done.stdout.splitlines()
    assert "54 sequences, selected on the test part, as the paper's protocol does), toy" in first


@pytest.mark.parametrize(("held_out", "noted"), [(19, True), (20, False)])
def test_few_held_out_sequences_are_said_to_be_few(
    held_out: int, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {
        "dataset": "toy",
        "protocol": "cross-subject",
        "recipe": "toy",
        "seed": 0,
        "seconds": 3.0,
        "device": "cpu",
        "selected_on": "validation",
        "test_evaluated": False,
        "validation_accuracy": 0.5,
        "validation_sequences": held_out,
        "kept_epoch": 1,
    }
    network = build_network(toy.RECIPE, joints=6, coordinates=3, classes=3)
    _print_outcome(TrainedRun(Path("run"), toy.RECIPE, network, results))
    printed = capsys.readouterr()
    assert f"50.0 % of {held_out} sequences" in printed.out
    assert ("held-out sequences hardly tell" in " ".join(printed.err.split())) == noted


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"recipe": "utd-mahd"}, "did you mean utd-mhad?"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--protocol": "cross-subjct"}, "cross-subject"),
        ({"--set": "training.epoch=3"}, "did you mean epochs?"),
        ({"--epochs": "3", "--set": "training.epochs=5"}, "give one of them"),
        ({"recipe": "bert"}, "more, which `tssan-viz describe` lists"),
        ({"--validation-subjects": "9"}, "9 is not in the training part; it has 1, 2, 3"),
        ({"--validation-subjects": "seven"}, "give the numbers of subjects, such as 7 or 5,7"),
        ({"--devices": "17"}, "a batch of 16 sequences has no share for each of 17 devices"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: dict[str, str],
    says: str,
) -> None:
    given: dict[str, object] = {"--data": data, "--out": tmp_path / "run"} | wrong
    chosen = given.pop("recipe", recipe)
    words = ["train", chosen, *(word for option in given.items() for word in option)]
    monkeypatch.setattr(sys, "argv", ["tssan-viz", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_resume_goes_on_with(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    epochs = ("--epochs", 400)
    process = subprocess.Popen(
        command(recipe, "--data", data, "--out", out, *epochs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    begun = time.monotonic()
    while not (out / "resume.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 200
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, (stdout, stderr)
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert not (out / "results.json").exists()

    refused = run(recipe, "--data", data, "--out", out, "--epochs", 300, "--resume")
    assert refused.returncode == 2
    assert "epochs" in refused.stderr


@pytest.mark.slow
def test_a_run_killed_outright_goes_on_to_the_same_curve(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    """kill −9 at any moment, twice; the times alone may differ."""

    def curve(out: Path) -> list[str]:
        lines = (out / "metrics.csv").read_text().splitlines()
        return [",".join(line.split(",")[:6]) for line in lines]

    words = ("--data", data, "--epochs", 60, "--no-test")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(recipe, *words, "--out", whole).returncode == 0
    for stop in (10, 35):
        resume = ["--resume"] if broken.exists() else []
        process = subprocess.Popen(
            command(recipe, *words, "--out", broken, *resume), stderr=subprocess.DEVNULL
        )
        metrics, begun = broken / "metrics.csv", time.monotonic()
        while not metrics.exists() or len(metrics.read_text().splitlines()) < stop:
            assert process.poll() is None
            assert time.monotonic() - begun < 200
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not (broken / "results.json").exists()
    done = run(recipe, *words, "--out", broken, "--resume")
    assert done.returncode == 0, done.stderr
    assert curve(broken) == curve(whole)
    found = [json.loads((out / "results.json").read_text()) for out in (broken, whole)]
    assert found[0]["checkpoint_sha256"] == found[1]["checkpoint_sha256"]


def helpers(pid: int) -> list[int]:
    """The training processes that one started, as Linux lists them."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, words in commands.items() if b"spawn_main" in words]


def wait_until(true: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < 200
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_end_together_however_they_end(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    words = (recipe, "--data", data, "--epochs", 2000, "--devices", 2, "--no-test", "--out")
    for stop in (signal.SIGKILL, signal.SIGINT):
        out = tmp_path / f"run-{stop}"
        process = subprocess.Popen(
            command(*words, out), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_until((out / "resume.ckpt").exists)
        (helper,) = helpers(process.pid)
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)  # a terminal sends Ctrl-C to all of them
        else:
            process.kill()
        _, stderr = process.communicate(timeout=100)
        wait_until(lambda helper=helper: not Path(f"/proc/{helper}/cmdline").exists())
        assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
        assert "Traceback" not in stderr
    assert "can be gone on from with --resume" in " ".join(stderr.split())
