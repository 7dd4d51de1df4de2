"""The annotation pickles of PYSKL and MMAction2: one file with all skeletons of a data set.

`ntu60_3danno.pkl`, `ntu120_3danno.pkl` (Kinect v2, metres), `ntu60_hrnet.pkl`, … (poses found in
the images: COCO's 17 joints, or OpenPose's 18) hold::

    {"split": {"xsub_train": [frame_dir, …], "xsub_val": […], …},
     "annotations": [{"frame_dir": str, "label": int, "total_frames": int,
                      "keypoint": array (m, t, v, c),
                      "keypoint_score": array (m, t, v), "img_shape": (height, width)}, …]}

The older form is a list of annotations in a file per part: a folder with `train.pkl` and `val.pkl`.

Such files are made to be unpickled, which lets them do anything. Here they are read by
`tssan.skeletons.pickles`, which executes nothing and leaves the coordinates in the file until a
sequence is asked for::

    annotations = open_annotations("ntu60_3danno.pkl")
    sequence = annotations[0]

PYSKL stores metres as float16, that is in steps of 2 mm at 2 to 4 m from the sensor and of 4 mm
beyond: about as much as a slow hand moves from frame to frame. Raw files are better where there are
any. H. Duan et al.: PYSKL: towards good practices for skeleton action recognition. ACM MM 2022.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tssan.errors import DataError
from tssan.skeletons import arrays, classes, files, ntu_rgbd
from tssan.skeletons.annotations import Annotations
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.pickles import PickledArray, describe, read_pickle
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import COCO_17, KINECT_V2_25, OPENPOSE_18, Topology

FPS = 30.0
ENDINGS = (".pkl", ".pickle")
TEST_NAMES = ("test", "val")  # what the part that is not called train is called
LAYOUTS: dict[tuple[int, int], Topology] = {
    (25, 3): KINECT_V2_25,
    (17, 2): COCO_17,
    (18, 2): OPENPOSE_18,
}
"""By joints and coordinates: the skeleton."""

Parts = dict[str, list[str]]
"""By the name of a part (xsub_train): its samples."""


def open_annotations(path: str | os.PathLike[str]) -> PysklAnnotations:
    """Open an annotation pickle, or a folder with one for each part.

    Raises
    ------
    DataError
        If it cannot be read, is not such a file, or holds anything but data.
    """
    source = Path(path)
    if not source.exists():
        raise DataError(f"{source} does not exist; expected an annotation pickle of PYSKL")
    parts: Parts = {}
    entries: list[Any] = []
    in_parts = files_of_parts(source) if source.is_dir() else {}
    if source.is_dir():
        if not in_parts:
            raise DataError(
                f"{source} holds no train.pkl with a val.pkl or test.pkl; "
                "expected an annotation pickle of PYSKL, or a folder with one for each part"
            )
        for part, file in in_parts.items():
            of_part = _entries(read_pickle(file), file)
            parts[part] = [_frame_dir(e, i, file) for i, e in enumerate(of_part)]
            entries += of_part
    else:
        held = read_pickle(source)
        entries = _entries(held, source)
        if isinstance(held, dict):
            parts = _parts(held.get("split", {}), source)
    return PysklAnnotations(source, entries, parts)


class PysklAnnotations(Annotations):
    """The sequences of an annotation pickle, made by `open_annotations`."""

    def __init__(self, path: Path, entries: Sequence[Any], parts: Parts) -> None:
        self._path, self._entries = path, entries
        samples = [_frame_dir(entry, i, path) for i, entry in enumerate(entries)]
        (most, times), *_ = Counter(samples).most_common(1)
        if times > 1:
            raise DataError(f"{path}: {most} is annotated {times} times; expected once")
        self.samples = samples
        self._numbers = [_numbers_of(sample) for sample in samples]
        labels = [self._label(i) for i in range(len(entries))]
        self.topology = LAYOUTS[self._layout(0)]
        flat = self.topology is not KINECT_V2_25
        edition = self._edition(labels)
        remarks = []
        if edition is not None:
            self.name = edition.name + ("-hrnet17" if self.topology is COCO_17 else "")
            self.classes = edition.classes
        elif flat and max(labels) + 1 == len(classes.KINETICS):
            joints = {COCO_17: "hrnet17", OPENPOSE_18: "openpose18"}[self.topology]
            self.name, self.classes = f"kinetics-{joints}", classes.KINETICS
        else:
            self.name, self.classes = path.stem, _numbered(max(labels) + 1)
            remarks.append(
                f"{path.name} does not name its {len(self.classes)} classes; they are called "
                f"{self.classes[0].name} to {self.classes[-1].name}"
            )
        known = edition.protocols if edition is not None else ()
        self.protocols = tuple(
            _as_published(protocol, known, samples, self._numbers) for protocol in _divisions(parts)
        )
        if not parts and edition is not None:
            self.protocols = known
        here = set(samples)
        for name, listed in parts.items():
            if absent := [sample for sample in listed if sample not in here]:
                remarks.append(
                    f"{path.name}: {len(absent):,} of the {len(listed):,} samples of {name} have "
                    f"no annotation, such as {absent[0]}"
                )
        self.remarks = tuple(remarks)

    def read(self, position: int) -> SkeletonSequence:
        """Return the sequence at a position from 0.

        Returns
        -------
        SkeletonSequence
            Persons as the annotation lists them, ``(m, t, v, c)``, in metres or in parts of the
            image's width and height. Subject, camera, set-up and replication are known of NTU
            RGB+D, from the sample's name.

        Raises
        ------
        DataError
            If the annotation is damaged.
        """
        entry, sample = self._entries[position], self.samples[position]
        where = f"{self._path.name}, {sample}"
        v, c = self._layout(position)
        if LAYOUTS[v, c] is not self.topology:
            raise DataError(
                f"{where}: {v} joints with {c} coordinates; expected {len(self.topology.joints)} "
                f"joints as in {self.samples[0]}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused below
            joints = entry["keypoint"].array().astype(np.float32)  # (m, t, v, c)
        frames = entry.get("total_frames", joints.shape[1])
        if type(frames) is not int or not 1 <= frames <= joints.shape[1]:
            raise DataError(
                f"{where}: total_frames is {describe(frames)} and keypoint has {joints.shape[1]} "
                "frames; expected as many"
            )
        joints = joints[:, :frames]
        score = _score(entry, joints.shape[:3], frames, where)
        if c == 3:
            joints = np.stack([arrays.metres(person, self.topology, where) for person in joints])
            present = np.stack([arrays.any_joint(person) for person in joints])
        else:
            seen = np.any(joints != 0, axis=3) if score is None else score > 0
            found = np.asarray(seen, dtype=np.bool_)  # (m, t, v)
            present = np.asarray(found.any(axis=2), dtype=np.bool_)
            joints = _in_parts(joints, found, entry, where)
        action = self.classes[self._label(position)]
        numbers = self._numbers[position] or {}
        return SkeletonSequence(
            joints=joints,
            present=present,
            topology=self.topology,
            units="m" if c == 3 else "image",
            fps=FPS,
            sample=sample,
            label=action.label,
            class_name=action.name,
            class_code=action.code,
            subject=numbers.get("subject"),
            camera=numbers.get("camera"),
            setup=numbers.get("setup"),
            replication=numbers.get("replication"),
            score=score,
            source=where,
        )

    def _label(self, position: int) -> int:
        label = self._entries[position].get("label")
        if type(label) is not int or not 0 <= label < 10_000:
            raise DataError(
                f"{self._path.name}, {self.samples[position]}: label is {describe(label)}; "
                "expected the number of a class, from 0"
            )
        return label

    def _layout(self, position: int) -> tuple[int, int]:
        entry = self._entries[position]
        keypoint = entry.get("keypoint")
        where = f"{self._path.name}, {self.samples[position]}"
        if keypoint is None and "raw_file" in entry:
            raise DataError(
                f"{where}: its keypoints lie in another file, {describe(entry['raw_file'])}; "
                "expected a pickle that holds them itself (keypoint)"
            )
        good = isinstance(keypoint, PickledArray) and keypoint.dtype.kind == "f"
        if not good or len(keypoint.shape) != 4 or 0 in keypoint.shape:
            raise DataError(
                f"{where}: keypoint is {describe(keypoint)}; expected an array of real numbers "
                "(persons, frames, joints, coordinates)"
            )
        v, c = keypoint.shape[2:]
        if (v, c) not in LAYOUTS:
            known = ", ".join(f"{v} with {c}" for v, c in LAYOUTS)
            raise DataError(
                f"{where}: keypoint has {v} joints with {c} coordinates; expected {known}"
            )
        return v, c

    def _edition(self, labels: Sequence[int]) -> ntu_rgbd.Edition | None:
        """Return the edition of NTU RGB+D that this is, if names and labels say that it is one."""
        for numbers, label in zip(self._numbers, labels, strict=True):
            if numbers is None or numbers["action"] != label + 1:
                return None
        edition = ntu_rgbd.edition_of(f"{_plain_name(sample)}.skeleton" for sample in self.samples)
        return edition if max(labels) < edition.actions else None


def files_of_parts(folder: Path) -> dict[str, Path]:
    """Return the files of an older data set, by part; none if a folder is not one."""
    for test in TEST_NAMES:
        for ending in ENDINGS:
            both = {part: folder / f"{part}{ending}" for part in ("train", test)}
            if all(file.is_file() for file in both.values()):
                return {f"{folder.name}_{part}": file for part, file in both.items()}
    return {}


def _entries(held: Any, path: Path) -> list[Any]:
    entries = held.get("annotations") if isinstance(held, dict) else held
    if not isinstance(entries, list) or not entries:
        found = describe(entries)
        if isinstance(held, dict) and entries is None:
            found = f"a dict of {', '.join(describe(key) for key in list(held)[:5])}"
        raise DataError(
            f"{path} holds {found}; expected split and annotations, or a list of annotations"
        )
    return entries


def _frame_dir(entry: Any, position: int, path: Path) -> str:
    if not isinstance(entry, dict):
        raise DataError(
            f"{path.name}: annotation {position} is {describe(entry)}; expected frame_dir, label, "
            "total_frames and keypoint"
        )
    name = entry.get("frame_dir", entry.get("filename"))
    if not isinstance(name, str) or not 0 < len(name) <= 255:
        raise DataError(
            f"{path.name}: frame_dir of annotation {position} is {describe(name)}; "
            "expected the name of a video"
        )
    return name


def _parts(split: Any, path: Path) -> Parts:
    if not isinstance(split, dict):
        raise DataError(f"{path}: split is {describe(split)}; expected parts and their samples")
    parts = {}
    for name, listed in split.items():
        samples = listed.array().tolist() if isinstance(listed, PickledArray) else listed
        if not isinstance(name, str) or not isinstance(samples, list | tuple):
            raise DataError(
                f"{path}: part {describe(name)} is {describe(listed)}; expected a list of samples"
            )
        for sample in samples:
            if not isinstance(sample, str):
                raise DataError(
                    f"{path}: part {describe(name)} lists {describe(sample)}; "
                    "expected names as in frame_dir"
                )
        parts[name] = list(samples)
    return parts


def _divisions(parts: Parts) -> list[Protocol]:
    """Pair xsub_train with xsub_val as the protocol xsub, train1 with test1 as 1."""
    divisions = []
    for name, train in parts.items():
        for test in TEST_NAMES:
            other = name.replace("train", test)
            if other != name and other in parts:
                called = name.replace("train", "").strip("_- ") or f"train-{test}"
                divisions.append(Protocol(called, "sample", tuple(train), tuple(parts[other])))
                break
    return divisions


def _as_published(
    listed: Protocol,
    known: Sequence[Protocol],
    samples: Sequence[str],
    numbers: Sequence[Mapping[str, int] | None],
) -> Protocol:
    """Return the published protocol of the same name if it divides these samples the same way."""
    for protocol in known:
        if protocol.name == listed.name:
            values = [found[protocol.by] if found else None for found in numbers]
            pairs = list(zip(samples, values, strict=True))
            train = {sample for sample, value in pairs if value in protocol.train}
            test = {sample for sample, value in pairs if value in protocol.test}
            here = set(samples)
            if train == here & set(listed.train) and test == here & set(listed.test):
                return protocol
    return listed


def _plain_name(sample: str) -> str:
    """Return the name of the video of which a sample was made, as in S001C001P001R001A001_rgb."""
    return sample.removesuffix("_rgb")


def _numbers_of(sample: str) -> dict[str, int] | None:
    try:
        return files.parse_name(f"{_plain_name(sample)}.skeleton", files.NTU_RGBD)[1]
    except DataError:
        return None


def _numbered(number: int) -> tuple[ActionClass, ...]:
    digits = max(2, len(str(number)))
    return tuple(
        ActionClass(label, f"class {label:0{digits}d}", f"A{label + 1:0{digits}d}")
        for label in range(number)
    )


def _score(
    entry: Mapping[str, Any], shape: tuple[int, ...], frames: int, where: str
) -> NDArray[np.float32] | None:
    """Return how sure the pose estimator was, ``(m, t, v)``; HRNet's scores exceed 1 at times."""
    found = entry.get("keypoint_score")
    if found is None:
        return None
    if not isinstance(found, PickledArray) or found.dtype.kind != "f" or len(found.shape) != 3:
        raise DataError(
            f"{where}: keypoint_score is {describe(found)}; expected an array {shape} "
            "(persons, frames, joints)"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        score = found.array()[:, :frames].astype(np.float32)
    if score.shape != shape:
        raise DataError(f"{where}: keypoint_score has shape {score.shape}; expected {shape}")
    if not np.isfinite(score).all():
        raise DataError(f"{where}: a keypoint_score is not a finite number; expected 0 to 1")
    return np.clip(score, 0, 1)


def _in_parts(
    joints: NDArray[np.float32], found: NDArray[np.bool_], entry: Mapping[str, Any], where: str
) -> NDArray[np.float32]:
    """Turn pixels into parts of the image's width and height; joints that were not found are 0."""
    shape = entry.get("img_shape", entry.get("original_shape"))
    if (
        not isinstance(shape, tuple | list)
        or len(shape) != 2
        or not all(type(side) is int and 0 < side < 100_000 for side in shape)
    ):
        raise DataError(
            f"{where}: img_shape is {describe(shape)}; expected the image's height and width"
        )
    height, width = shape
    with np.errstate(invalid="ignore"):
        parts = joints / np.array([width, height], np.float32)
        wrong = ~(np.abs(parts) <= arrays.FARTHEST) & found[..., None]
    if wrong.any():
        m, t, v, c = np.argwhere(wrong)[0]
        raise DataError(
            f"{where}: frame {t}, person {m + 1}, joint {v}: {'xy'[c]} is {joints[m, t, v, c]:g}; "
            f"expected pixels of an image of {width} × {height}"
        )
    return np.where(found[..., None], parts, np.float32(0))
