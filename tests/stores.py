"""A generated store for tests of everything that reads one; all of it goes through RunWriter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tssan_viz.store import (
    AttentionStore,
    Catalogue,
    ClassEntry,
    Site,
    SkeletonInfo,
    StoredSample,
    open_store,
)
from tssan_viz.store.places import BucketPath

# Twenty-five joints: a spine of five and four limbs of five.
JOINTS = (
    *(f"spine {i}" for i in range(4)),
    "head",
    *(f"left arm {i}" for i in range(5)),
    *(f"right arm {i}" for i in range(5)),
    *(f"left leg {i}" for i in range(5)),
    *(f"right leg {i}" for i in range(5)),
)
BONES = (
    *((i, i + 1) for i in range(4)),
    (3, 5),
    *((i, i + 1) for i in range(5, 9)),
    (3, 10),
    *((i, i + 1) for i in range(10, 14)),
    (0, 15),
    *((i, i + 1) for i in range(15, 19)),
    (0, 20),
    *((i, i + 1) for i in range(20, 24)),
)
SIDES = tuple(
    "left" if j.startswith("left") else "right" if j.startswith("right") else "centre"
    for j in JOINTS
)
SKELETON = SkeletonInfo("generated-25", JOINTS, BONES, SIDES, "m", head_joint=4)

CODES = {
    "drink water": "A001",
    "reading": "A011",
    "put on jacket": "A014",
    "take off jacket": "A015",
    "hand waving": "A023",
}
ALIASES = {"put on jacket": ("wear jacket", "put on a jacket"), "hand waving": ("wave",)}


def make_catalogue(classes: Sequence[str]) -> Catalogue:
    return Catalogue(
        dataset="generated",
        classes=tuple(
            ClassEntry(i, name, CODES.get(name, f"A{100 + i:03d}"), ALIASES.get(name, ()))
            for i, name in enumerate(classes)
        ),
        skeleton=SKELETON,
        fps=30.0,
    )


def make_sites(layers: int, heads: int, frames: int) -> tuple[Site, ...]:
    return tuple(Site(f"blocks.{n}.attend", n + 1, heads, frames, frames) for n in range(layers))


def softmax_maps(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    scores = rng.normal(size=shape).astype(np.float32) * 2
    return _softmax(scores)


def _softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


def measures_of(p: np.ndarray) -> dict[str, np.ndarray]:
    """Return entropy, distance, look-ahead and peak of maps (r, h, q, s), each (r, h)."""
    t = p.shape[-1]
    offset = np.arange(t)[None, :] - np.arange(p.shape[-2])[:, None]
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(-1).mean(-1) / np.log(t)
    return {
        "entropy": entropy.astype(np.float32),
        "distance": (p * np.abs(offset)).sum(-1).mean(-1).astype(np.float32),
        "look_ahead": (p * offset).sum(-1).mean(-1).astype(np.float32),
        "peak": p.max(-1).mean(-1).astype(np.float32),
    }


def make_poses(rng: np.random.Generator, persons: int, segments: int, frames: int) -> np.ndarray:
    """Return poses (m, k, t, v, c) that swing their limbs; in metres, roughly a body's size."""
    rest = np.zeros((25, 3), np.float32)
    rest[:5, 1] = np.linspace(0.9, 1.7, 5)
    for start, x, y, dx, dy in (
        (5, 0.2, 1.45, 0.12, -0.1),
        (10, -0.2, 1.45, -0.12, -0.1),
        (15, 0.1, 0.85, 0.01, -0.2),
        (20, -0.1, 0.85, -0.01, -0.2),
    ):
        steps = np.arange(5)
        rest[start : start + 5, 0] = x + dx * steps
        rest[start : start + 5, 1] = y + dy * steps
    phase = np.linspace(0, 2 * np.pi, segments * frames).reshape(segments, frames)
    poses = np.broadcast_to(rest, (persons, segments, frames, 25, 3)).copy()
    swing = 0.05 * np.sin(phase + rng.uniform(0, 2 * np.pi))
    poses[..., 5:15, 1] += swing[None, :, :, None] * np.tile(np.arange(5), 2)
    poses[..., 0] += np.arange(persons)[:, None, None, None] * 0.8
    return poses.astype(np.float32)


def make_store(
    path: Path | BucketPath,
    *,
    subjects: int = 8,
    classes: Sequence[str] = ("put on jacket", "reading", "hand waving", "drink water"),
    cameras: Sequence[int] = (1, 2),
    replications: Sequence[int] = (1, 2),
    layers: int = 2,
    heads: int = 4,
    frames: int = 16,
    segments: int = 1,
    persons: int = 1,
    planted: str | None = None,
    seed: int = 0,
    poses: bool = True,
    run: str = "generated",
    split: str = "test",
) -> AttentionStore:
    """Write a store whose maps carry a subject's manner and, where `planted` says so, a class.

    Every subject has its own map (a random one per layer and head), every video adds noise of its
    own. In the last layer's head 1 the videos of the class `planted` share one map across subjects.
    Samples are named as NTU RGB+D names them, and a tenth of the videos is predicted wrongly.
    """
    rng = np.random.default_rng(seed)
    catalogue = make_catalogue(classes)
    sites = make_sites(layers, heads, frames)
    manner = rng.normal(size=(subjects, layers, heads, frames, frames)).astype(np.float32)
    shared = 2 * rng.normal(size=(frames, frames)).astype(np.float32)
    store = open_store(path, create=True)
    info = {"recipe": "generated", "seed": seed, "device": "cpu", "precision": "float32"}
    with store.writer(run, sites=sites, catalogue=catalogue, info=info) as writer:
        for entry in catalogue.classes:
            rows: dict[str, list] = {name: [] for name in ROW_NAMES}
            scores: list[np.ndarray] = []
            samples: list[StoredSample] = []
            for subject in range(1, subjects + 1):
                for camera in cameras:
                    for replication in replications:
                        name = f"S001C{camera:03d}P{subject:03d}R{replication:03d}{entry.code}"
                        wrong = rng.random() < 0.1 and len(classes) > 1
                        predicted = (entry.label + 1) % len(classes) if wrong else entry.label
                        confidence = float(rng.uniform(0.5, 1.0))
                        for segment in range(1, segments + 1):
                            for person in range(1, persons + 1):
                                noise = rng.normal(size=(layers, heads, frames, frames))
                                score = manner[subject - 1] + 0.7 * noise.astype(np.float32)
                                if entry.name == planted:
                                    score[-1, 0] += shared
                                scores.append(score)
                                line = (
                                    name,
                                    entry.label,
                                    entry.name,
                                    entry.code,
                                    subject,
                                    camera,
                                    1,
                                    replication,
                                    segment,
                                    person,
                                    predicted,
                                    confidence,
                                    predicted == entry.label,
                                )
                                for column, value in zip(ROW_NAMES, line, strict=True):
                                    rows[column].append(value)
                        k = np.arange(segments * frames, dtype=np.float32)
                        source = (2.5 * k).reshape(segments, frames)
                        samples.append(
                            StoredSample(
                                name,
                                entry.label,
                                entry.name,
                                entry.code,
                                subject,
                                camera,
                                frames=source,
                                seconds=source / 30,
                                poses=make_poses(rng, persons, segments, frames) if poses else None,
                                present=np.ones((persons, segments), bool),
                            )
                        )
            p = _softmax(np.stack(scores))
            half = p.astype(np.float16)
            measured = [measures_of(p[:, n]) for n in range(layers)]
            writer.add_samples(samples)
            writer.add(
                {**rows, "split": split, "step": 0, "phase": "inference"},
                {site.name: half[:, n] for n, site in enumerate(sites)},
                {
                    measure: {site.name: measured[n][measure] for n, site in enumerate(sites)}
                    for measure in measured[0]
                },
            )
    return store


ROW_NAMES = (
    "sample",
    "label",
    "class_name",
    "class_code",
    "subject",
    "camera",
    "setup",
    "replication",
    "segment",
    "person",
    "predicted",
    "confidence",
    "correct",
)
