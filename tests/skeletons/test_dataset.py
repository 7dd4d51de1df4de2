"""The prepared folder gives back what went in, appears whole or not at all, and explains itself."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tssan.dataset import SkeletonDataset, Skipped, prepare
from tssan.errors import DataError
from tssan.skeletons import classes, nw_ucla, protocols, utd_mhad
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import NW_UCLA_20

from tests.skeletons import written

ACTIONS = classes.NW_UCLA[:3]
BY_SUBJECT = Protocol("cross-subject", "subject", (1,), (2,))
BY_VIEW = Protocol("cross-view", "camera", (1, 2), (3,))
LEAKY = replace(BY_VIEW, name="cross-view-with-leak", leaves_out_copies=False)


def video(label=0, subject=1, camera=1, *, t=4, m=1, seed=None, **changes) -> SkeletonSequence:
    seed = hash((label, subject, camera, t, m)) % 2**32 if seed is None else seed
    sequence = SkeletonSequence(
        joints=np.stack([written.poses(t, 20, seed + i) for i in range(m)]).astype(np.float32),
        present=np.ones((m, t), bool),
        topology=NW_UCLA_20,
        units="m",
        fps=30.0,
        sample=f"a{label}_s{subject}_v{camera}",
        label=label,
        class_name=ACTIONS[label].name,
        class_code=ACTIONS[label].code,
        subject=subject,
        camera=camera,
        source="written by hand",
    )
    return replace(sequence, **changes)


def grid() -> list[SkeletonSequence]:
    return [video(a, s, v, t=3 + a + v) for a in range(3) for s in (1, 2) for v in (1, 2, 3)]


def made(sequences, out, **given) -> SkeletonDataset:
    defaults = {"name": "made", "classes": ACTIONS, "protocols": (BY_SUBJECT, BY_VIEW, LEAKY)}
    return prepare(sequences, out, **(defaults | given))


def same(one: SkeletonSequence, other: SkeletonSequence) -> bool:
    arrays = ("joints", "present", "score")
    scored = (one.score is None) == (other.score is None)
    return (
        scored
        and all(
            np.array_equal(getattr(one, a), getattr(other, a))
            for a in arrays
            if getattr(one, a) is not None
        )
        and all(v == getattr(other, k) for k, v in vars(one).items() if k not in arrays)
    )


def test_gives_back_what_went_in(tmp_path):
    sequences = grid()
    sequences[1] = video(0, 1, 2, t=7, m=2, setup=17, replication=2)
    absent = np.ones((2, 7), bool)
    absent[1, 3:] = False
    sequences[1] = replace(sequences[1], present=absent)
    sequences[2] = replace(sequences[2], subject=None, camera=None)
    made(iter(sequences), tmp_path / "data")
    opened = SkeletonDataset.open(tmp_path / "data")
    assert len(opened) == len(sequences)
    assert all(same(*pair) for pair in zip(sequences, opened, strict=True))
    assert same(opened[-1], sequences[-1])
    assert (opened.name, opened.units, opened.fps) == ("made", "m", 30.0)
    assert (opened.topology, opened.classes) == (NW_UCLA_20, ACTIONS)
    with pytest.raises(IndexError, match=r"sequence 18; .* holds 18"):
        opened[18]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 5), st.booleans()), min_size=1))
def test_gives_back_any_mixture_of_lengths_and_persons(tmp_path_factory, shapes):
    sequences = []
    for position, (m, t, scored) in enumerate(shapes):
        sequence = video(t=t, m=m, seed=position, sample=f"v{position}")
        score = np.full((m, t, 20), 0.5, np.float32) if scored else None
        sequences.append(replace(sequence, score=score))
    opened = made(sequences, tmp_path_factory.mktemp("any") / "data")
    for before, after in zip(sequences, opened, strict=True):
        np.testing.assert_array_equal(after.joints, before.joints)
        if before.score is not None:
            np.testing.assert_array_equal(after.score, before.score)
        elif after.score is not None:
            assert (after.score == 1).all()
    assert (opened.score is not None) == any(scored for *_, scored in shapes)


def test_index_has_one_line_per_sequence_and_null_where_unknown(tmp_path):
    index = made([video(subject=None), video(1)], tmp_path / "data").index
    assert index.columns.tolist() == [
        *("sample", "label", "class_name", "class_code", "subject", "camera", "setup"),
        *("replication", "split", "frames", "persons", "offset", "duplicate_of", "source"),
    ]
    assert index["subject"].tolist() == [pd.NA, 1]
    assert index["setup"].isna().all()
    assert index["label"].to_numpy().dtype == np.int64
    assert index["duplicate_of"].tolist() == [None, None]


def test_the_folder_explains_itself_and_holds_plain_arrays(tmp_path):
    skipped = [Skipped("x.json", "x.json: nobody")]
    folder = made(grid(), tmp_path / "data", skipped=skipped).path
    meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert meta["topology"]["joints"][3] == "head"
    assert meta["classes"][0] == {
        **{"label": 0, "name": "pick up with one hand", "code": "A01"},
        "aliases": ["picking up with one hand"],
    }
    assert meta["skipped"] == [{"name": "x.json", "reason": "x.json: nobody"}]
    first, *_ = meta["protocols"]
    assert (first["by"], first["train"], first["test"]) == ("subject", [1], [2])
    assert (first["train_size"], first["test_size"]) == (9, 9)
    joints = np.load(folder / "joints.npy", allow_pickle=False)
    assert joints.dtype == np.float32
    assert joints.shape == (sum(s.frames for s in grid()), 20, 3)
    assert SkeletonDataset.open(folder).skipped == tuple(skipped)


def test_aliases_are_kept(tmp_path):
    opened = made(grid(), tmp_path / "data", classes=classes.NW_UCLA)
    assert "put on jacket" in opened.classes[6].aliases


def test_only_a_path_goes_to_a_worker(tmp_path):
    opened = made([video(t=500)], tmp_path / "data")
    sent = pickle.dumps(opened)
    assert len(sent) < 1000
    assert same(pickle.loads(sent)[0], opened[0])


# ---------------------------------------------------------------------------- copies, protocols


def with_copies() -> list[SkeletonSequence]:
    """Class 0's view 3 is a copy of its view 2, subject by subject."""
    return [
        video(a, s, v, seed=1000 * a + 100 * s + (2 if a == 0 and v == 3 else v))
        for a in range(3)
        for s in (1, 2)
        for v in (1, 2, 3)
    ]


def test_exact_copies_are_flagged_and_not_tested_on(tmp_path):
    data = made(with_copies(), tmp_path / "data")
    copies = data.index.dropna(subset="duplicate_of")
    assert dict(zip(copies["sample"], copies["duplicate_of"], strict=True)) == {
        "a0_s1_v3": "a0_s1_v2",
        "a0_s2_v3": "a0_s2_v2",
    }
    clean, leaky = data.split("cross-view"), data.split("cross-view-with-leak")
    assert (len(clean.train), len(clean.test)) == (12, 4)
    assert (len(leaky.train), len(leaky.test)) == (12, 6)
    assert set(leaky.test) - set(clean.test) == set(copies.index)
    both_sides = data.split("cross-subject")
    assert (len(both_sides.train), len(both_sides.test)) == (9, 9)


def test_a_copy_on_the_training_side_keeps_its_original_out_of_the_test(tmp_path):
    other_way = Protocol("other-way", "camera", (3,), (1, 2))
    data = made(with_copies(), tmp_path / "data", protocols=[other_way])
    samples = data.index["sample"]
    assert set(samples) - set(samples[np.concatenate(list(vars(data.split()).values()))]) == {
        "a0_s1_v2",
        "a0_s2_v2",
    }


@pytest.mark.parametrize("change", ["last bit", "one frame less", "absent"])
def test_nearly_the_same_is_no_copy(tmp_path, change):
    original = video()
    joints, present = original.joints.copy(), original.present.copy()
    if change == "last bit":
        joints[0, 2, 5, 1] = np.nextafter(joints[0, 2, 5, 1], np.float32(9))
    elif change == "one frame less":
        joints, present = joints[:, 1:], present[:, 1:]
    else:
        present[0, 1] = False
    other = replace(original, joints=joints, present=present, sample="other")
    assert made([original, other], tmp_path / "data").index["duplicate_of"].isna().all()


def test_protocols_are_named_the_first_is_the_default_and_empty_ones_are_left_out(tmp_path):
    data = made([video(0, 1, 1), video(1, 2, 2)], tmp_path / "data")
    assert data.protocols == ("cross-subject",)
    assert data.protocol() == data.protocol("cross-subject") == BY_SUBJECT
    assert [part.tolist() for part in (data.split().train, data.split().test)] == [[0], [1]]
    with pytest.raises(
        DataError, match="no protocol 'xsubject'; it has cross-subject; did you mean"
    ):
        data.split("xsubject")
    with pytest.raises(DataError, match="it has cross-subject: give --protocol with one of them"):
        data.split("train-val")
    with pytest.raises(DataError, match="has no protocol"):
        made([video()], tmp_path / "lone").split()


def test_published_protocols_have_the_published_subjects():
    (utd,) = protocols.UTD_MHAD
    assert (utd.train, utd.test) == ((1, 3, 5, 7), (2, 4, 6, 8))
    xsub, xset = protocols.NTU120
    xsub60, xview = protocols.NTU60
    assert xsub60.train == xsub.train[:20]
    assert sorted(xsub60.train + xsub60.test) == list(range(1, 41))
    assert (len(xsub.train), len(xsub.test)) == (53, 53)
    assert sum(subject <= 40 for subject in xsub.train) == 20
    assert sorted(xsub.train + xsub.test) == list(range(1, 107))
    assert (xview.train, xview.test) == ((2, 3), (1,))
    assert xset.train == tuple(range(2, 33, 2))
    assert xset.test == tuple(range(1, 32, 2))
    (halves,) = protocols.first_half_trains(range(1, 8))
    assert (halves.train, halves.test) == ((1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize(
    ("listed", "divisions", "sizes"),
    [
        ("ntu60_missing.txt", protocols.NTU60, {"xsub": (229, 73), "xview": (274, 28)}),
        ("ntu120_missing.txt", protocols.NTU120, {"xsub": (334, 201), "xset": (252, 283)}),
    ],
)
def test_real_samples_that_lack_skeletons_fall_to_the_published_sides(
    ntu_files, listed, divisions, sizes
):
    """Tells the lists of subjects from others of the same length."""
    text = (ntu_files[0].parent / listed).read_text()
    columns = {"setup": slice(1, 4), "camera": slice(5, 8), "subject": slice(9, 12)}
    names = [word for word in text.split() if word.startswith("S") and len(word) == 20]
    for protocol in divisions:
        sides = [int(name[columns[protocol.by]]) in protocol.train for name in names]
        assert (sum(sides), len(sides) - sum(sides)) == sizes[protocol.name]


# ------------------------------------------------------------------------------ whole or not at all


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()
    }


@pytest.mark.parametrize("stop", [DataError("a bad file"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", ["nothing", "prepared"])
def test_what_stops_in_the_middle_leaves_all_as_it_was(tmp_path, stop, before):
    out = tmp_path / "data"
    if before == "prepared":
        made([video(2)], out)
    found = contents(tmp_path)

    def sequences():
        yield video(0)
        yield video(1)
        raise stop

    with pytest.raises(type(stop)):
        made(sequences(), out)
    assert contents(tmp_path) == found
    assert sorted(os.listdir(tmp_path)) == (["data"] if before == "prepared" else [])


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_while_folders_change_places_leaves_all_as_it_was(tmp_path, monkeypatch, stop):
    out = tmp_path / "data"
    made([video(2)], out)
    found = contents(tmp_path)
    whole = Path.rename

    def rename(self, target):
        if "unfinished" in self.name:
            raise stop
        return whole(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DataError if isinstance(stop, OSError) else KeyboardInterrupt):
        made([video(0), video(1)], out)
    assert contents(tmp_path) == found
    assert os.listdir(tmp_path) == ["data"]


def test_prepared_again_replaces_the_whole(tmp_path):
    scored = replace(video(), score=np.ones((1, 4, 20), np.float32))
    made([scored], tmp_path / "data")
    again = made(grid(), tmp_path / "data")
    assert len(again) == 18
    assert again.score is None
    assert os.listdir(tmp_path) == ["data"]
    assert len(os.listdir(tmp_path / "data")) == 4


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(made([video()], tmp_path / "empty")) == 1
    assert len(made([video()], tmp_path / "a" / "b" / "data")) == 1


def test_other_peoples_folders_are_not_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("It was a dark and stormy night")
    (tmp_path / "note").write_text("x")

    def never():
        raise AssertionError("nothing is read for a folder that will be refused")
        yield

    with pytest.raises(DataError, match="thesis holds something that is not a prepared data set"):
        made(never(), tmp_path / "thesis")
    with pytest.raises(DataError, match="note is a file; expected the name of a folder"):
        made(never(), tmp_path / "note")
    assert os.listdir(tmp_path / "thesis") == ["chapter1.tex"]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tssan.dataset_writer._GrowingArray.append", full)
    with pytest.raises(DataError, match=r"cannot write .*data: No space left on device"):
        made([video()], tmp_path / "data")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        ([], "made: no sequence could be read, so there is nothing to prepare"),
        ([video(), video(t=9)], "written by hand: a second sequence is called 'a0_s1_v1'"),
        ([video(), video(1, fps=25.0)], "25 frames per second; expected nw-ucla-20 .* 30 frames"),
        ([video(), video(1, units="image")], "units image, .*; expected .*units m, .* as in a0_s1"),
        (
            [replace(video(), label=None)],
            "label None with class 'pick up with one hand'; expected one of the 3",
        ),
        ([video(class_name="carry")], "label 0 with class 'carry'; expected one of the 3 classes"),
    ],
)
def test_sequences_that_do_not_belong_together(tmp_path, sequences, said):
    with pytest.raises(DataError, match=said):
        made([replace(s) for s in sequences], tmp_path / "data")
    assert os.listdir(tmp_path) == []


def test_a_wrong_folder_is_answered_with_what_it_holds(tmp_path):
    with pytest.raises(
        DataError, match=r"utd does not exist; expected a folder that `tssan-viz prep"
    ):
        SkeletonDataset.open(tmp_path / "utd")
    with pytest.raises(DataError, match="is empty; expected a folder"):
        SkeletonDataset.open(tmp_path)
    for name in ("Skeleton.zip", "a", "b", "c"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"holds Skeleton.zip, a, b, … but no dataset.json"):
        SkeletonDataset.open(tmp_path)
    with pytest.raises(DataError, match=r"Skeleton.zip is a file; expected a folder"):
        SkeletonDataset.open(tmp_path / "Skeleton.zip")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"does not say format 'tssan-dataset'"):
        SkeletonDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d / "joints.npy").write_bytes((d / "joints.npy").read_bytes()[:-9]), "damaged"),
        (lambda d: (d / "present.npy").unlink(), "damaged: .*present.npy"),
        (lambda d: (d / "index.parquet").write_bytes(b"x"), "damaged"),
        (
            lambda d: np.save(d / "present.npy", np.ones(3, bool)),
            r"present.npy \(3,\); the index need",
        ),
        (lambda d: np.save(d / "joints.npy", np.array([None])), "damaged"),
        (lambda d: (d / "dataset.json").write_text("{"), "dataset.json: .*; expected a folder"),
        (lambda d: edit(d, version=2), "version 2; this tssan reads version 1: prepare it again"),
        (lambda d: edit(d, classes=None), "damaged"),
        (lambda d: edit(d, topology={}), "topology: entry 'name' is missing"),
    ],
)
def test_a_damaged_folder_is_said_to_be_damaged(tmp_path, damage, said):
    folder = made(grid(), tmp_path / "data").path
    damage(folder)
    with pytest.raises(DataError, match=said):
        SkeletonDataset.open(folder)


def edit(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps(meta | changes))


# -------------------------------------------------------------------------------- real archives


def test_real_utd_mhad(utd_mhad_zip, tmp_path):
    read = (utd_mhad.read_file(f.read(), f.name) for f in utd_mhad.find_files(utd_mhad_zip))
    data = made(read, tmp_path / "utd", classes=classes.UTD_MHAD, protocols=protocols.UTD_MHAD)
    split = data.split()
    assert (len(split.train), len(split.test)) == (431, 430)
    assert data.index["duplicate_of"].isna().all()


def test_real_nw_ucla_copies_are_those_that_are_known(nw_ucla_zip, tmp_path):
    read = (nw_ucla.read_file(f.read(), f.name) for f in nw_ucla.find_files(nw_ucla_zip))
    data = made(read, tmp_path / "ucla", classes=classes.NW_UCLA, protocols=protocols.NW_UCLA)
    listed = (nw_ucla_zip.parent / "cross_view_duplicates.txt").read_text().split()
    copies = data.index.dropna(subset="duplicate_of")
    assert set(zip(copies["duplicate_of"], copies["sample"], strict=True)) == set(
        zip(listed[::2], listed[1::2], strict=True)
    )
    sizes = {
        name: (len(s.train), len(s.test)) for name in data.protocols if (s := data.split(name))
    }
    assert sizes == {
        "cross-subject": (724, 760),
        "cross-view": (1020, 369),
        "cross-view-with-leak": (1020, 464),
    }


def test_another_data_set_is_not_replaced(tmp_path):
    made([video()], tmp_path / "there", name="one")
    with pytest.raises(DataError, match="holds the data set one, which two does not replace"):
        made([video()], tmp_path / "there", name="two")
    assert SkeletonDataset.open(tmp_path / "there").name == "one"
