"""The store beside raw .npy files that were written and read in the same process.

    python benchmarks/store.py [--videos 4096] [--folder DIR]

Generated maps: videos × 3 segments × 4 layers × 8 heads of 32 × 32, float16, appended 64 videos at
a time; both sides are on the disk (fsync of files and folders) before the next 64 come. Reads are
warm (the second and later of each), medians of seven. Ratios hold where times do not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.distance import jensenshannon

from tssan_viz.store import Catalogue, ClassEntry, Site, open_store
from tssan_viz.store.codes import CODES, column_type, decode_lines, encode
from tssan_viz.store.schema import decode

SEGMENTS, LAYERS, HEADS, FRAMES = 3, 4, 8, 32
CLASSES = 60
BATCH = 64
SITES = tuple(Site(f"blocks.{n}.attend", n + 1, HEADS, FRAMES, FRAMES) for n in range(LAYERS))
CATALOGUE = Catalogue(
    "generated", tuple(ClassEntry(i, f"class {i}", f"A{i + 1:03d}") for i in range(CLASSES))
)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return row-wise probabilities."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def generated(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return maps (r, l, h, q, s), some heads sharp and some spread out, as trained ones are."""
    sharpness = np.geomspace(0.5, 6, HEADS).astype(np.float32)[:, None, None]
    scores = rng.normal(size=(rows, LAYERS, HEADS, FRAMES, FRAMES)).astype(np.float32)
    return softmax(scores * sharpness)


class Fsyncs:
    """Counts fsync calls, and what they cost."""

    def __init__(self) -> None:
        self.calls = 0
        self._fsync = os.fsync

    def __enter__(self) -> Fsyncs:
        def counted(descriptor: int) -> None:
            self.calls += 1
            self._fsync(descriptor)

        os.fsync = counted
        return self

    def __exit__(self, *error: object) -> None:
        os.fsync = self._fsync


def durably(folder: Path, name: str, values: np.ndarray) -> None:
    """Write one .npy file and return when it, and its name, are on the disk."""
    with (folder / name).open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def warm(work: Callable[[], object], rounds: int = 7) -> float:
    """Return the median time of work in seconds, not counting the first time."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def append(folder: Path, pool: np.ndarray, videos: int) -> dict[str, float]:
    """Write the same maps as .npy shards and into a store, turn about; return median times."""
    shards = folder / "npy"
    shards.mkdir()
    store = open_store(folder / "store", create=True)
    rows = BATCH * SEGMENTS
    raw, ours, raw_fsyncs, our_fsyncs = [], [], 0, 0
    with store.writer("generated", sites=SITES, catalogue=CATALOGUE) as writer:
        for start in range(0, videos, BATCH):
            maps = np.roll(pool, start, axis=0)[:rows]
            label = [(start + i) % CLASSES for i in range(BATCH) for _ in range(SEGMENTS)]
            with Fsyncs() as counted:
                begun = time.perf_counter()
                durably(shards, f"{start:06d}.npy", maps)
                raw.append(time.perf_counter() - begun)
            raw_fsyncs += counted.calls
            with Fsyncs() as counted:
                begun = time.perf_counter()
                writer.add(
                    {
                        "sample": [
                            f"v{start + i:06d}" for i in range(BATCH) for _ in range(SEGMENTS)
                        ],
                        "label": label,
                        "segment": list(range(1, SEGMENTS + 1)) * BATCH,
                    },
                    {site.name: maps[:, n] for n, site in enumerate(SITES)},
                )
                writer.flush()
                ours.append(time.perf_counter() - begun)
            our_fsyncs += counted.calls
    batches = videos / BATCH
    return {
        "npy": float(np.median(raw)),
        "store": float(np.median(ours)),
        "npy_fsyncs": raw_fsyncs / batches,
        "store_fsyncs": our_fsyncs / batches,
    }


def reads(folder: Path, videos: int) -> list[tuple[str, float, float]]:
    """Return what is read, the time from the memory-mapped files, and that from the store."""
    shards = [np.load(p, mmap_mode="r") for p in sorted((folder / "npy").iterdir())]
    rows = BATCH * SEGMENTS
    store = open_store(folder / "store")
    everything = store.select()
    label = np.repeat(np.arange(videos) % CLASSES, SEGMENTS)
    chosen = np.flatnonzero(label == 7)

    def raw_class() -> np.ndarray:
        return np.stack([shards[r // rows][r % rows, 2, 3] for r in chosen])

    def raw_means() -> np.ndarray:
        sums = np.zeros((CLASSES, HEADS, FRAMES, FRAMES))
        for i, shard in enumerate(shards):
            values = decode(shard[:, 2])
            part = label[i * rows : (i + 1) * rows]
            for c in np.unique(part):
                sums[c] += values[part == c].sum(0, dtype=np.float64)
        return (sums / np.bincount(label)[:, None, None, None]).astype(np.float32)

    middle = f"v{videos // 2:06d}"
    at = videos // 2 * SEGMENTS
    one = store.select(sample=middle, layer=3)
    of_class = store.select(class_name="class 7", layer=3, head=4)
    layer = everything.select(layer=3)
    np.testing.assert_array_equal(next(of_class.iter_maps())[1][:, 0, 0], raw_class())
    np.testing.assert_allclose(layer.mean("label").values[:, 0], raw_means(), atol=1e-6)
    return [
        (
            "one video's layer, all heads",
            warm(lambda: np.array(shards[at // rows][at % rows : at % rows + SEGMENTS, 2])),
            warm(lambda: list(one.iter_maps())),
        ),
        (
            f"class × layer × head ({len(chosen)} rows)",
            warm(raw_class),
            warm(lambda: list(of_class.iter_maps())),
        ),
        ("class means of a layer", warm(raw_means, 3), warm(lambda: layer.mean("label"), 3)),
    ]


def codes(pool: np.ndarray) -> list[str]:
    """Return a line for each code: bytes, largest error, and the relative error of divergences."""
    p = pool.reshape(-1, FRAMES, FRAMES)[:4096]
    half = len(p) // 2
    true = jensenshannon(p[:half], p[half:], axis=-1) ** 2
    lines = []
    for code in CODES:
        back = decode(decode_lines(encode(p, code), code, FRAMES, FRAMES))
        back = back / back.sum(-1, keepdims=True)
        seen = jensenshannon(back[:half], back[half:], axis=-1) ** 2
        size = column_type(code, 1, 1).value_type.bit_width // 8
        error = 100 * np.quantile(np.abs(seen / true - 1), 0.99)
        lines.append(f"{code:<10}{size:>3}{np.abs(back - p).max():>14.1e}{error:>17.3f} %")
    return lines


def peak_of_a_scan(folder: Path) -> tuple[float, float]:
    """Return the memory in MB that a scan over all maps adds, and that of the process before."""
    program = (
        "from pathlib import Path; from tssan_viz.store import open_store; "
        f"store = open_store({str(folder / 'store')!r}); selection = store.select(layer=3); "
        "said = lambda: Path('/proc/self/status').read_text().split('VmHWM:')[1]; "
        "peak = lambda: int(said().split()[0]) / 1024; "
        "before = peak(); selection.mean('label'); print(before, peak())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    before, after = map(float, said.stdout.split())
    return after - before, before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="Where files go; by default a temporary one.")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    single = generated(rng, 512)
    pool = single.astype(np.float16)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        videos = given.videos // BATCH * BATCH
        print(f"{videos} videos, {videos * SEGMENTS * LAYERS * HEADS * FRAMES**2 * 2 / 1e9:.2f} GB")
        took = append(folder, pool, videos)
        print(f"{'':<40}{'raw .npy, ms':>14}{'store, ms':>12}{'ratio':>8}")
        lines = [("append 64 videos", took["npy"], took["store"]), *reads(folder, videos)]
        for what, raw, ours in lines:
            print(f"{what:<40}{1e3 * raw:>14.2f}{1e3 * ours:>12.2f}{ours / raw:>8.2f}")
        print(
            f"fsyncs for 64 videos: {took['npy_fsyncs']:.0f} raw, {took['store_fsyncs']:.0f} store"
        )
        opening = warm(lambda: open_store(folder / "store").run_names())
        first = warm(lambda: len(open_store(folder / "store").select()))
        print(f"opening {1e3 * opening:.1f} ms, to the first selection {1e3 * first:.1f} ms")
        store = open_store(folder / "store")
        question = "select class_name, layer, head, count(*) from maps group by all"
        lines_of_maps = store.sql("select count(*) as n from maps")["n"][0]
        print(
            f"SQL over {lines_of_maps:,} lines: {1e3 * warm(lambda: store.sql(question), 3):.0f} ms"
        )
        added, before = peak_of_a_scan(folder)
        print(f"memory: a scan of a layer adds {added:.0f} MB to {before:.0f} MB")
    print(f"{'code':<10}{'B':>3}{'max error':>14}{'JSD, p99':>19}")
    print("\n".join(codes(single)))


if __name__ == "__main__":
    main()
