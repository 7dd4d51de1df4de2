"""`tssan-viz prepare`: what it writes, what it says, and how it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tssan.dataset import SkeletonDataset
from tssan.recipe import recipe_names
from tssan.skeletons import classes
from tssan.skeletons.formats import FORMATS
from tssan.skeletons.plain_sources import KEYS

from tests.skeletons import written
from tests.skeletons.test_kinetics import release
from tssan_viz import cli
from tssan_viz.cli.prepare import RECIPES


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command in an empty folder; return exit status, output, errors in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tssan-viz", "prepare", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, " ".join(said.err.split())

    return call


def utd(path: Path, *, bad: int = 0) -> Path:
    """A small archive: two classes, two subjects, two trials, the first `bad` files cut off."""
    names = [
        f"Skeleton/a{a}_s{s}_t{t}_skeleton.mat" for a in (1, 8) for s in (1, 2) for t in (1, 2)
    ]
    contents = {
        name: written.utd_mhad(np.moveaxis(written.poses(9, 20, seed), 0, 2))
        for seed, name in enumerate(names)
    }
    return written.archive(
        path, {n: d[:200] if i < bad else d for i, (n, d) in enumerate(contents.items())}
    )


def test_says_what_there_is_and_what_comes_next(run, tmp_path):
    status, out, _ = run("utd-mhad", utd(tmp_path / "Skeleton.zip"), "--out", "utd")
    assert status == 0
    assert out.splitlines()[0] == "utd: 8 sequences of utd-mhad, 2 classes, 2 subjects, 72 frames"
    assert ["cross-subject", "4", "4", "the", "default"] in [
        line.split() for line in out.splitlines()
    ]
    assert out.splitlines()[-1] == "next: tssan-viz train utd-mhad --data utd --out run"
    data = SkeletonDataset.open(tmp_path / "utd")
    assert data.index["class_name"].unique().tolist() == ["swipe left", "draw X"]
    assert len(data.classes) == 27
    assert sorted(os.listdir(tmp_path)) == ["Skeleton.zip", "utd"]


def test_a_bad_file_stops_it_and_leaves_nothing(run, tmp_path):
    status, out, said = run("utd-mhad", utd(tmp_path / "Skeleton.zip", bad=2), "--out", "utd")
    assert (status, out) == (2, "")
    assert said.startswith("error: Skeleton/a1_s1_t1_skeleton.mat: cannot be read as a MATLAB file")
    assert "expected a MATLAB file with d_skel, 20 joints × 3 coordinates × frames" in said
    assert said.endswith("(--skip-bad leaves such files out)")
    assert os.listdir(tmp_path) == ["Skeleton.zip"]


def test_skip_bad_prepares_the_rest_and_lists_what_it_left_out(run, tmp_path):
    source = utd(tmp_path / "Skeleton.zip", bad=2)
    status, out, _ = run("utd-mhad", source, "--out", "utd", "--skip-bad")
    assert status == 0
    assert "6 sequences" in out
    assert "2 files were left out (listed in dataset.json):" in out
    for trial in (1, 2):
        name = f"Skeleton/a1_s1_t{trial}_skeleton.mat"
        assert f"  {name}: cannot be read as a MATLAB file" in out
    skipped = SkeletonDataset.open(tmp_path / "utd").skipped
    assert [left_out.name for left_out in skipped] == [
        "Skeleton/a1_s1_t1_skeleton.mat",
        "Skeleton/a1_s1_t2_skeleton.mat",
    ]
    assert all(left_out.reason.startswith(left_out.name) for left_out in skipped)


def test_when_all_are_bad_there_is_nothing_to_prepare(run, tmp_path):
    source = utd(tmp_path / "Skeleton.zip", bad=8)
    status, _, said = run("utd-mhad", source, "--out", "utd", "--skip-bad")
    assert status == 2
    assert "no sequence could be read, so there is nothing to prepare" in said
    assert os.listdir(tmp_path) == ["Skeleton.zip"]


def test_a_failure_leaves_the_data_set_that_was_there(run, tmp_path):
    source = utd(tmp_path / "Skeleton.zip")
    assert run("utd-mhad", source, "--out", "utd")[0] == 0
    assert run("utd-mhad", utd(source, bad=1), "--out", "utd")[0] == 2
    assert len(SkeletonDataset.open(tmp_path / "utd")) == 8
    assert run("utd-mhad", source, "--out", "utd", "--skip-bad")[0] == 0
    assert len(SkeletonDataset.open(tmp_path / "utd")) == 7


def test_copies_are_told_with_what_follows_from_them(run, tmp_path):
    poses = [written.poses(5, 20, seed) for seed in range(2)]
    contents = {
        f"all_sqe/a01_s{s:02d}_e00_v{v:02d}.json": written.nw_ucla(poses[s - 1] + (v == 1), 1)
        for s in (1, 2)
        for v in (1, 2, 3)
    }
    source = written.archive(tmp_path / "all_sqe.zip", contents)
    contents["all_sqe/a01_s03_e00_v03.json"] = written.nw_ucla(poses[0] + 1.5, 1)
    written.archive(source, contents)
    status, out, _ = run("nw-ucla", source, "--out", "my data")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert status == 0
    assert "2 are exact copies of another sequence (duplicate_of in index.parquet)" in out
    assert "cross-view 4 1 without 2 copies of training sequences" in lines
    assert "cross-view-with-leak 4 3" in lines
    assert out.splitlines()[-1] == "next: tssan-viz train nw-ucla --data 'my data' --out run"


def test_ntu_files_from_a_folder(run, tmp_path):
    for subject in (1, 3):
        body = [[(72057594037931101, joints)] for joints in written.poses(12, 25, subject)]
        name = f"S001C001P{subject:03d}R001A014.skeleton"
        (tmp_path / name).write_bytes(written.ntu_rgbd(body))
    status, out, _ = run("ntu-rgbd", ".", "--out", "ntu")
    assert status == 0
    assert ["xsub", "1", "1", "the", "default"] in [line.split() for line in out.splitlines()]
    assert "xview" not in out
    assert len(SkeletonDataset.open("ntu").classes) == 60


def test_without_a_protocol_it_says_so(run, tmp_path):
    body = [[(5, joints)] for joints in written.poses(12, 25)]
    (tmp_path / "S001C001P001R001A014.skeleton").write_bytes(written.ntu_rgbd(body))
    _, out, _ = run("ntu-rgbd", ".", "--out", "ntu")
    assert "no protocol of this data set leaves sequences for training and for testing" in out


def test_synthetic_people(run, tmp_path):
    assert run("synthetic", "--subjects", 3, "--out", "made")[0] == 0
    made = SkeletonDataset.open("made")
    assert made.classes == classes.SYNTHETIC
    assert len(made) == 3 * len(classes.SYNTHETIC) * 3 * 2
    assert made.protocol().train == (1,)
    assert made.protocol().test == (2, 3)
    assert not made.index["duplicate_of"].notna().any()
    run("synthetic", "--subjects", 3, "--out", "again")
    run("synthetic", "--subjects", 3, "--seed", 1, "--out", "other")
    joints = [
        Path(tmp_path, name, "joints.npy").read_bytes() for name in ("made", "again", "other")
    ]
    assert joints[0] == joints[1] != joints[2]


def test_every_recipe_that_is_suggested_exists():
    assert set(RECIPES.values()) <= set(recipe_names())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("nw-ucla", "Skeleton.zip"),
            "Skeleton.zip holds no Northwestern-UCLA file (expected a01_s01_e00_v01.json, …), but "
            "8 of UTD-MHAD such as Skeleton/a1_s1_t1_skeleton.mat: `tssan-viz prepare utd-mhad` "
            "reads them",
        ),
        (
            ("utd-mhad", "Skeletn.zip"),
            "Skeletn.zip does not exist; expected UTD-MHAD's archive or folder; did you mean "
            "Skeleton.zip?",
        ),
        (
            ("utd-mhad",),
            "utd-mhad needs the files to read: the archive or its folder, as in "
            "`tssan-viz prepare utd-mhad Skeleton.zip --out x`",
        ),
        (("synthetic", "Skeleton.zip"), "synthetic skeletons are made, not read from Skeleton.zip"),
        (("utd-mhad", "Skeleton.zip", "--seed", "1"), "--subjects and --seed are for synthetic"),
        (
            ("kinetics", "Skeleton.zip"),
            "there is no data set 'kinetics' (did you mean kinetics-openpose18?); there are auto, "
            "utd-mhad, nw-ucla, ntu60, ntu120, ntu-rgbd, kinetics-openpose18, pyskl, ctr-gcn, "
            "plain and synthetic",
        ),
        (("utd_mahd", "Skeleton.zip"), "no data set 'utd_mahd' (did you mean utd-mhad?)"),
        (
            ("utd-mhad", "Skeleton.zip", "--topology", "kinect-v2-25"),
            "--topology is for plain data; utd-mhad knows its joints",
        ),
        (("auto",), "auto needs something to look at: a folder or a file"),
        (
            ("auto", "Skeletn.zip"),
            "Skeletn.zip does not exist; expected a data set's archive or folder; did you mean "
            "Skeleton.zip?",
        ),
    ],
)
def test_wrong_input_is_answered_in_words(run, tmp_path, arguments, said):
    utd(tmp_path / "Skeleton.zip")
    status, out, error = run(*arguments, "--out", "x")
    assert (status, out) == (2, "")
    # Usage errors come in a box, whose sides stand between the words of a broken line.
    assert said in " ".join(error.replace("│", " ").split())
    assert os.listdir(tmp_path) == ["Skeleton.zip"]


def test_a_folder_with_something_else_in_it_is_refused(run, tmp_path):
    source = utd(tmp_path / "Skeleton.zip")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    status, _, said = run("utd-mhad", source, "--out", "thesis")
    assert status == 2
    assert "thesis holds something that is not a prepared data set" in said
    assert os.listdir(tmp_path / "thesis") == ["chapter1.tex"]


def test_auto_says_what_it_recognised_and_why(run, tmp_path):
    status, out, _ = run("auto", utd(tmp_path / "whatever.zip"), "--out", "utd")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].endswith(
        "whatever.zip is utd-mhad: 8 of its files are called as those of UTD-MHAD, such as "
        "Skeleton/a1_s1_t1_skeleton.mat"
    )
    assert lines[1] == "utd: 8 sequences of utd-mhad, 2 classes, 2 subjects, 72 frames"


def test_auto_shows_what_would_fit_when_nothing_does(run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    status, out, said = run("auto", "thesis", "--out", "x")
    assert (status, out) == (2, "")
    assert "thesis is no skeleton data set that is known; seen: 1 files (1 × .tex" in said
    assert "plain: your own skeletons in one file, such as mine.npz" in said


def test_skeletons_of_ones_own(run, tmp_path):
    joints = np.stack([written.poses(9, 4, seed) for seed in range(8)]).astype(np.float32)
    names = {"label": ["sit", "walk"] * 4, "subject": ["Mia", "Mia", "Ben", "Ben"] * 2}
    np.savez(tmp_path / "mine.npz", joints=joints, **names)
    (tmp_path / "doll.yaml").write_text("joints: [a, b, c, d]\nparents: {b: a, c: a, d: a}\n")
    status, out, _ = run(
        "plain", "mine.npz", "--topology", "doll.yaml", "--out", "mine", "--processes", 2
    )
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "mine: 8 sequences of mine, 2 classes, 2 subjects, 72 frames"
    assert lines[-1] == (
        "next: tssan-viz train utd-mhad --data mine --out run --protocol cross-subject "
        "--set clips.align=none --set clips.scale=none"
    )
    data = SkeletonDataset.open(tmp_path / "mine")
    assert data.topology.joints == ("a", "b", "c", "d")
    assert data.subject_names == {1: "Ben", 2: "Mia"}
    np.testing.assert_array_equal(data[3].joints[0], joints[3])


@pytest.mark.slow
def test_the_command_that_follows_can_be_run(run, tmp_path):
    """A flat skeleton with scores, of two people, trains with the settings that are suggested."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(0.2, 0.8, (80, 2, 12, 18, 2)).astype(np.float32)
    np.savez(
        tmp_path / "flat.npz",
        joints=joints,
        score=rng.uniform(0.5, 1, (80, 2, 12, 18)),
        label=[0, 1] * 40,
        subject=np.arange(80) // 10,
        topology="openpose-18",
    )
    status, out, _ = run("auto", "flat.npz", "--out", "flat")
    assert status == 0
    command = out.splitlines()[-1].removeprefix("next: ").split()
    program = Path(sys.executable).with_name(command[0])
    extra = ["--epochs", "1", "--set", "clips.score_as_coordinate=true"]
    done = subprocess.run(
        [program, *command[1:], *extra], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout


def test_kinetics_leaves_out_what_has_no_skeleton(run, tmp_path):
    release(tmp_path / "kinetics")
    status, out, _ = run("auto", "kinetics", "--out", "k")
    assert status == 0
    assert "k: 3 sequences of kinetics-openpose18, 1 classes, subjects not known" in out
    assert "1 file was left out (listed in dataset.json):" in out
    assert ["train-val", "2", "1", "the", "default"] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == "next: tssan-viz train t2_ts-san-v2-kinetics --data k --out run"


def test_ctrl_c_tells_how_to_go_on(tmp_path):
    contents = {
        f"Skeleton/a{a}_s{s}_t{t}_skeleton.mat": written.utd_mhad(
            np.moveaxis(written.poses(60, 20, a), 0, 2)
        )
        for a in range(1, 28)
        for s in range(1, 9)
        for t in range(1, 5)
    }
    written.archive(tmp_path / "Skeleton.zip", contents)
    command = [Path(sys.executable).with_name("tssan-viz"), "prepare", "utd-mhad", "Skeleton.zip"]
    process = subprocess.Popen(
        [*command, "--out", "utd", "--processes", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    kept = tmp_path / ".utd.preparing"
    while len(list(kept.glob("part-*.npz"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "interrupted: the same command goes on where it stopped" in said
    assert "Traceback" not in said
    assert sorted(os.listdir(tmp_path)) == [".utd.preparing", "Skeleton.zip"]
    done = subprocess.run(
        [*command, "--out", "utd"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("utd: 864 sequences of utd-mhad, 27 classes, 8 subjects")
    assert sorted(os.listdir(tmp_path)) == ["Skeleton.zip", "utd"]


def test_help_teaches_by_example(run):
    status, out, _ = run("--help")
    assert status == 0
    said = " ".join(out.split())
    assert "tssan-viz prepare utd-mhad Skeleton.zip --out utd" in said
    assert "np.savez" in said
    arguments = out[out.index("Arguments") : out.index("Options")]
    assert set(FORMATS) <= set(re.findall(r"[\w-]+", arguments))


def test_help_names_every_entry_of_a_plain_file(run):
    status, out, _ = run("plain", "--help")
    assert status == 0
    assert set(KEYS) <= set(re.findall(r"\w+", out))


def test_the_installed_command_on_the_real_archive(utd_mhad_zip, tmp_path):
    command = Path(sys.executable).with_name("tssan-viz")
    done = subprocess.run(
        [command, "prepare", "utd-mhad", utd_mhad_zip, "--out", "utd"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = done.stdout.splitlines()
    assert first == "utd: 861 sequences of utd-mhad, 27 classes, 8 subjects, 58,299 frames"
    assert last == "next: tssan-viz train utd-mhad --data utd --out run"


def test_prepares_without_torch(tmp_path):
    utd(tmp_path / "Skeleton.zip")
    code = (
        "import sys; from tssan_viz import cli\n"
        "sys.argv = ['tssan-viz', 'prepare', 'utd-mhad', 'Skeleton.zip', '--out', 'utd']\n"
        "try: cli.main()\n"
        "except SystemExit as left: assert not left.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
