"""Write a store row by row, for data sets with holes, copies, splits and strangers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.stores import make_catalogue, make_sites
from tssan_viz.store import AttentionStore, Site, StoredSample, open_store

CLASSES = ("put on jacket", "reading", "hand waving", "drink water")
FRAMES = 6


def every(
    subjects: int = 4, classes: int = 3, cameras: int = 1, segments: int = 1, **columns: Any
) -> pd.DataFrame:
    """Return one line for each row of a full data set; further columns as given."""
    lines = [
        {
            "sample": f"S{subject}L{label}C{camera}",
            "label": label,
            "subject": subject,
            "camera": camera,
            "replication": 1,
            "segment": segment,
            "person": 1,
            "split": "test",
            "step": 0,
            "phase": "inference",
        }
        for subject in range(1, subjects + 1)
        for label in range(classes)
        for camera in range(1, cameras + 1)
        for segment in range(1, segments + 1)
    ]
    return pd.DataFrame(lines).assign(**columns)


def random_maps(rows: pd.DataFrame, site: Site, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(rows), site.heads, site.query, site.key))
    maps = np.exp(2 * scores)
    return (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)


def write(
    path: Path,
    rows: pd.DataFrame,
    *,
    layers: int = 1,
    heads: int = 2,
    copies: dict[str, str] | None = None,
    run: str = "by hand",
    maps: Callable[[pd.DataFrame, Site], np.ndarray] = random_maps,
) -> AttentionStore:
    store = open_store(path, create=True)
    catalogue = make_catalogue(CLASSES)
    sites = make_sites(layers, heads, FRAMES)
    named = rows.assign(
        class_name=[None if pd.isna(label) else CLASSES[int(label)] for label in rows["label"]],
        class_code=[
            None if pd.isna(label) else catalogue.by_label[int(label)].code
            for label in rows["label"]
        ],
    )
    columns = {
        name: [None if pd.isna(value) else value for value in named[name].astype(object)]
        for name in named.columns
    }
    with store.writer(run, sites=sites, catalogue=catalogue, info={}) as writer:
        writer.add_samples(
            [
                StoredSample(
                    sample=line["sample"],
                    label=None,
                    class_name=None,
                    class_code=None,
                    subject=None,
                    camera=None,
                    frames=np.arange(FRAMES, dtype=np.float32)[None],
                    duplicate_of=(copies or {}).get(line["sample"]),
                )
                for line in rows.drop_duplicates("sample").to_dict(orient="records")
            ]
        )
        writer.add(columns, {site.name: maps(rows, site) for site in sites})
    return store
