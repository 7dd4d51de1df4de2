"""A data set that trains in a second: a six-joint skeleton, three ways of moving, six subjects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tssan.dataset import SkeletonDataset, prepare
from tssan.recipe import ClipsRecipe, NetworkRecipe, Recipe, TrainingRecipe
from tssan.skeletons.classes import ActionClass
from tssan.skeletons.protocols import Protocol
from tssan.skeletons.sequence import SkeletonSequence
from tssan.skeletons.topology import Topology

TOPOLOGY = Topology(
    name="toy-6",
    joints=("hip", "chest", "shoulder_left", "shoulder_right", "hip_left", "hip_right"),
    parents=(-1, 0, 1, 1, 0, 0),
    sides=("centre", "centre", "left", "right", "left", "right"),
    centre=0,
    spine=1,
    hips=(4, 5),
    shoulders=(2, 3),
)
POSE = np.array([[0, 1, 3], [0, 1.5, 3], [-0.2, 1.5, 3], [0.2, 1.5, 3], [-0.1, 1, 3], [0.1, 1, 3]])
CLASSES = (
    ActionClass(0, "rise", "A01"),
    ActionClass(1, "sway", "A02"),
    ActionClass(2, "approach", "A03"),
)
CROSS_SUBJECT = Protocol("cross-subject", "subject", (1, 2, 3), (4, 5, 6))
CROSS_VIEW = Protocol("cross-view", "camera", (1,), (2,))

RECIPE = Recipe(
    name="toy",
    clips=ClipsRecipe(
        frames=8, segments=2, persons=2, align="yaw", scale="torso", min_crop_frames=0, rotate=0.1
    ),
    network=NetworkRecipe(layers=1, heads=2, width=16, norm="pre", dropout=0.1),
    training=TrainingRecipe(
        epochs=4,
        batch_size=16,
        optimizer="adamw",
        learning_rate=3e-3,
        schedule="one_cycle",
        validation=0.2,
    ),
)


def move(label: int, subject: int, camera: int, replication: int) -> SkeletonSequence:
    rng = np.random.default_rng([label, subject, camera, replication])
    frames = int(rng.integers(20, 40))
    way = np.zeros((frames, 1, 3))
    phase = np.linspace(0, 1, frames)
    way[:, 0, label] = 0.5 * (phase if label else np.sin(6 * phase))
    joints = (1 + 0.05 * subject) * POSE + way[:, [0, 0, 0, 0, 0, 0]] * np.array(
        [0.1, 1, 1, 1, 0.2, 0.2]
    )[None, :, None]
    joints = joints + 0.01 * rng.normal(size=joints.shape)
    persons = 1 + (label == 2)
    return SkeletonSequence(
        joints=np.stack([joints] * persons).astype(np.float32),
        present=np.ones((persons, frames), bool),
        topology=TOPOLOGY,
        units="m",
        fps=30.0,
        sample=f"a{label}s{subject}c{camera}r{replication}",
        label=label,
        class_name=CLASSES[label].name,
        class_code=CLASSES[label].code,
        subject=subject,
        camera=camera,
        replication=replication,
    )


def make(out: Path) -> SkeletonDataset:
    return prepare(
        (
            move(label, subject, camera, replication)
            for label in range(3)
            for subject in range(1, 7)
            for camera in (1, 2)
            for replication in (1, 2, 3)
        ),
        out,
        name="toy",
        classes=CLASSES,
        protocols=(CROSS_SUBJECT, CROSS_VIEW),
    )
