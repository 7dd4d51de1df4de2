"""The store beside raw .npy files and beside other formats, written and read in the same process.

    python benchmarks/store.py [--videos 4096] [--only npy store] [--folder DIR]
    python benchmarks/store.py --videos 16560 --only npy store
    python benchmarks/store.py --commits 3000

Generated maps: videos × 3 segments × 4 layers × 8 heads of 32 × 32, float16, appended 64 videos at
a time as the recorder does. Every format acknowledges at the same points, whenever the store does:
what was appended until then is on the disk (files and folders fsynced, and counted). The last block
has the other extreme, each 64 videos acknowledged for themselves.

Formats take turns within each round, so that a ratio to raw .npy is of neighbours in time (in
appending, a turn is all that one acknowledgement is for); medians, with the quartiles of the ratios
in brackets. Before each timed piece that writes, on all sides alike, a file of 800 MB is written
and deleted, untimed: virtual machines may give memory that lies free for a second back to their
host, and faulting it in again takes 2 s per GB, of which a machine with memory of its own knows
nothing. Reads are warm. Class means are summed in float64 on
all sides: the store's by `Selection.mean`, all others by `add_up` below, which looks float16 up in
a table (NumPy's own cast takes three times as long). Ratios hold where times do not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import torch
import zarr
from scipy.spatial.distance import jensenshannon
from typing_extensions import override

from tssan_viz.comparison.kept import KeptCells
from tssan_viz.comparison.kept_answers import (
    kept_class_similarities,
    kept_subject_similarities,
    kept_view_similarities,
)
from tssan_viz.store import Catalogue, ClassEntry, Site, open_store
from tssan_viz.store.codes import CODES, column_type, decode_lines, encode
from tssan_viz.store.schema import decode

SEGMENTS, LAYERS, HEADS, FRAMES = 3, 4, 8, 32
CLASSES, CAMERAS = 60, 3
BATCH = 64
ROWS = BATCH * SEGMENTS
LAYER, HEAD = 2, 3
MAP = (LAYERS, HEADS, FRAMES, FRAMES)
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
    scores = rng.normal(size=(rows, *MAP)).astype(np.float32)
    return softmax(scores * sharpness)


LENT_BYTES = 800_000_000

# So many values stay in the processor's cache between being decoded and added.
CACHED_VALUES = 1 << 15
with np.errstate(invalid="ignore"):  # Some of the codes are signalling NaN.
    FROM_HALF = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)


def add_up(sums: np.ndarray, group: np.ndarray, maps: np.ndarray) -> None:
    """Add float16 maps (r, …) to the sums (g, …) of their groups."""
    together = max(1, CACHED_VALUES // max(1, int(np.prod(maps.shape[1:]))))
    for start in range(0, len(maps), together):
        codes = np.ascontiguousarray(maps[start : start + together]).view(np.uint16)
        # Every code is in the table: "clip" saves the copy that "raise" makes.
        values = np.take(FROM_HALF, codes, mode="clip")
        for number, value in zip(group[start : start + together].tolist(), values, strict=True):
            sums[number] += value


class Fsyncs:
    """Counts fsync calls."""

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


def synced(path: Path) -> None:
    """Return when a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def borrow_memory(folder: Path) -> None:
    """See that memory for what is written next is at hand, not given back to a host."""
    path = folder / "borrowed"
    block = bytes(range(256)) * 4096
    with path.open("wb", buffering=0) as file:
        for _ in range(LENT_BYTES // len(block)):
            file.write(block)
    path.unlink()


class Npy:
    """One .npy file for 64 videos, memory-mapped: what nothing can be much faster than."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._fresh: list[Path] = []

    def append(self, start: int, maps: np.ndarray) -> bool:
        """Write 64 videos; return whether that came with an acknowledgement."""
        self._fresh.append(self._folder / f"{start:06d}.npy")
        np.save(self._fresh[-1], maps)
        return False

    def acknowledge(self) -> None:
        """Return when all that was appended is on the disk."""
        for path in [*self._fresh, self._folder]:
            synced(path)
        self._fresh = []

    def close(self) -> None:
        """End writing, and open for reading."""
        self._shards = [np.load(p, mmap_mode="r") for p in sorted(self._folder.iterdir())]

    def one(self, video: int) -> np.ndarray:
        """Return a layer's maps (k, h, q, s) of a video."""
        at = video * SEGMENTS
        return np.array(self._shards[at // ROWS][at % ROWS : at % ROWS + SEGMENTS, LAYER])

    def of_class(self, rows: np.ndarray) -> np.ndarray:
        """Return the maps (r, q, s) of one layer and head."""
        return np.stack([self._shards[r // ROWS][r % ROWS, LAYER, HEAD] for r in rows])

    def parts(self, layers: slice) -> Iterator[np.ndarray]:
        """Go through the maps of layers, some rows at a time."""
        for shard in self._shards:
            yield shard[:, layers]

    def means(self, label: np.ndarray, layers: slice) -> np.ndarray:
        """Return the mean maps of each class."""
        sums = np.zeros((CLASSES, *np.empty(MAP, np.bool_)[layers].shape))
        start = 0
        for maps in self.parts(layers):
            add_up(sums, label[start : start + len(maps)], maps)
            start += len(maps)
        return (sums / np.bincount(label)[:, None, None, None, None]).astype(np.float32)

    def means_of_layers(self, label: np.ndarray) -> None:
        """Make the mean maps of each class, layers shared out among all cores."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            layers = (slice(n, n + 1) for n in range(LAYERS))
            list(pool.map(lambda layer: Npy.means(self, label, layer), layers))


class Npz(Npy):
    """One .npz file a video, as people do it today."""

    @override
    def append(self, start: int, maps: np.ndarray) -> bool:
        for i in range(len(maps) // SEGMENTS):
            self._fresh.append(self._folder / f"{start + i:06d}.npz")
            np.savez(self._fresh[-1], attention=maps[i * SEGMENTS : (i + 1) * SEGMENTS])
        return False

    @override
    def close(self) -> None:
        self._videos = sorted(self._folder.iterdir())

    def _read(self, video: int) -> np.ndarray:
        with np.load(self._videos[video]) as file:
            return file["attention"]

    @override
    def one(self, video: int) -> np.ndarray:
        return self._read(video)[:, LAYER]

    @override
    def of_class(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [self._read(v)[:, LAYER, HEAD] for v in np.unique(rows // SEGMENTS).tolist()]
        )

    @override
    def parts(self, layers: slice) -> Iterator[np.ndarray]:
        for video in range(len(self._videos)):
            yield self._read(video)[:, layers]


class Hdf5(Npy):
    """One HDF5 file, a chunk for each row and layer."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_suffix(".h5")
        self._file = h5py.File(self._path, "w", libver="latest")
        self._maps = self._file.create_dataset(
            "maps", (0, *MAP), np.float16, maxshape=(None, *MAP), chunks=(1, 1, *MAP[1:])
        )
        # Written while it is read: without that mode a killed process leaves a file that does
        # not open.
        self._file.swmr_mode = True

    @override
    def append(self, start: int, maps: np.ndarray) -> bool:
        before = len(self._maps)
        self._maps.resize(before + len(maps), axis=0)
        self._maps[before:] = maps
        return False

    @override
    def acknowledge(self) -> None:
        self._file.flush()
        synced(self._path)

    @override
    def close(self) -> None:
        self._file.close()
        self._file = h5py.File(self._path)
        self._maps = self._file["maps"]

    @override
    def one(self, video: int) -> np.ndarray:
        return self._maps[video * SEGMENTS : (video + 1) * SEGMENTS, LAYER]

    @override
    def of_class(self, rows: np.ndarray) -> np.ndarray:
        return self._maps[rows, LAYER, HEAD]

    @override
    def parts(self, layers: slice) -> Iterator[np.ndarray]:
        for start in range(0, self._maps.shape[0], ROWS):
            yield self._maps[start : start + ROWS, layers]


class Zarr(Hdf5):
    """A Zarr array (version 3) with a shard for 64 videos, and in it a chunk a row and layer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps = zarr.create_array(
            store=str(folder),
            shape=(0, *MAP),
            dtype="float16",
            chunks=(1, 1, *MAP[1:]),
            shards=(ROWS, *MAP),
            compressors=None,
        )
        self._fsynced: set[Path] = set()

    @override
    def append(self, start: int, maps: np.ndarray) -> bool:
        before = self._maps.shape[0]
        self._maps.resize((before + len(maps), *MAP))
        self._maps[before:] = maps
        return False

    @override
    def acknowledge(self) -> None:
        fresh = [p for p in self._folder.rglob("*") if p.is_dir() or p.name == "zarr.json"]
        fresh += [p for p in self._folder.rglob("*") if p not in self._fsynced and p not in fresh]
        for path in [*fresh, self._folder]:
            synced(path)
        self._fsynced.update(fresh)

    @override
    def close(self) -> None:
        self._maps = zarr.open_array(str(self._folder), mode="r")

    @override
    def of_class(self, rows: np.ndarray) -> np.ndarray:
        return self._maps.oindex[rows, LAYER, HEAD]


class Store(Npy):
    """The store, through the selections that comparisons and views use."""

    # As many as NTU RGB+D 60 has for so many videos: 20 in the 16,560 of its test set.
    subjects = 20

    def __init__(self, folder: Path) -> None:
        self._store = open_store(folder, create=True)
        self._writer = self._store.writer("generated", sites=SITES, catalogue=CATALOGUE)

    @override
    def append(self, start: int, maps: np.ndarray) -> bool:
        count = len(maps) // SEGMENTS
        videos = np.arange(start, start + count).repeat(SEGMENTS)
        before = self._writer.rows_acknowledged
        self._writer.add(
            {
                "sample": [f"v{video:06d}" for video in videos.tolist()],
                "label": videos % CLASSES,
                "subject": videos // CLASSES % self.subjects + 1,
                "camera": videos // (CLASSES * self.subjects) % CAMERAS + 1,
                "segment": np.tile(np.arange(1, SEGMENTS + 1), count),
            },
            {site.name: maps[:, n] for n, site in enumerate(SITES)},
        )
        return self._writer.rows_acknowledged > before

    @override
    def acknowledge(self) -> None:
        self._writer.flush()

    @override
    def close(self) -> None:
        self._writer.close()

    @override
    def one(self, video: int) -> np.ndarray:
        one = self._selection(("sample", f"v{video:06d}"), layer=LAYER + 1)
        return next(one.iter_maps())[1][:, 0]

    @override
    def of_class(self, rows: np.ndarray) -> np.ndarray:
        del rows
        chosen = self._selection(("label", 7), layer=LAYER + 1, head=HEAD + 1)
        return next(chosen.iter_maps())[1][:, 0, 0]

    @override
    def means(self, label: np.ndarray, layers: slice) -> np.ndarray:
        del label
        chosen = None if layers == slice(None) else LAYER + 1
        return self._selection(("label", None), layer=chosen).mean("label").values

    def _selection(self, condition: tuple[str, object], **sites: object):
        # Made once, asked often, as a page of the dashboard does.
        key = (*condition, *sites.values())
        known = self.__dict__.setdefault("_selections", {})
        if key not in known:
            known[key] = self._store.select(**{condition[0]: condition[1]}, **sites)
        return known[key]


FORMATS = {"npy": Npy, "store": Store, "zarr": Zarr, "hdf5": Hdf5, "npz": Npz}


class Table:
    """Times of each format, and their ratios to raw .npy in the same round."""

    def __init__(self, formats: list[str]) -> None:
        self._formats = formats
        print(f"{'':<34}" + "".join(f"{name:>22}" for name in formats))

    def line(self, what: str, times: dict[str, list[float]]) -> None:
        """Print what was timed: .npy's median, and ratios to it (times where they say little)."""
        cells = []
        for name in self._formats:
            cell = f"{1e3 * np.median(times[name]):.2f} ms"
            if name != "npy":
                low, middle, high = np.quantile(
                    np.array(times[name]) / times["npy"], [0.25, 0.5, 0.75]
                )
                cell = f"{middle:.2f} [{low:.2f}, {high:.2f}]" if middle < 50 else cell
            cells.append(f"{cell:>22}")
        print(f"{what:<34}" + "".join(cells), flush=True)


def append(
    formats: dict[str, Npy], pool: np.ndarray, videos: int, folder: Path, *, each: bool
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Write the same maps in each format; return the times between acknowledgements, and fsyncs."""
    times: dict[str, list[float]] = {name: [] for name in formats}
    fsyncs = dict.fromkeys(formats, 0)
    start = 0
    while start < videos:
        # The store, which is first, says when: by size or by time.
        end = start + BATCH if each else videos
        for name in sorted(formats, key=lambda name: name != "store"):
            borrow_memory(folder)
            spent = 0.0
            acknowledged = False
            with Fsyncs() as counted:
                for at in range(start, end, BATCH):
                    maps = np.roll(pool, at, axis=0)[: SEGMENTS * min(BATCH, videos - at)]
                    begun = time.perf_counter()
                    acknowledged = formats[name].append(at, maps)
                    spent += time.perf_counter() - begun
                    if acknowledged:
                        end = at + BATCH
                        break
                if not acknowledged:
                    begun = time.perf_counter()
                    formats[name].acknowledge()
                    spent += time.perf_counter() - begun
            times[name].append(spent)
            fsyncs[name] += counted.calls
        start = end
    return times, {name: round(fsyncs[name] / len(times[name])) for name in formats}


def in_turn(
    formats: dict[str, Npy], work: Callable[[Npy], object], rounds: int
) -> dict[str, list[float]]:
    """Return the times of the same work in each format, round by round after a first one."""
    times: dict[str, list[float]] = {name: [] for name in formats}
    for n in range(rounds + 1):
        for name, opened in formats.items():
            begun = time.perf_counter()
            work(opened)
            if n:
                times[name].append(time.perf_counter() - begun)
    return times


def warm(work: Callable[[], object], rounds: int = 7) -> float:
    """Return the median time of work in seconds, not counting the first time."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


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


def write_again(files: Path, folder: Path) -> float:
    """Return how long the bytes of some files take to be written elsewhere, not waited for."""
    took = 0.0
    for n, path in enumerate(sorted(path for path in files.rglob("*") if path.is_file())):
        data = path.read_bytes()
        begun = time.perf_counter()
        folder.mkdir(exist_ok=True)
        (folder / str(n)).write_bytes(data)
        took += time.perf_counter() - begun
    shutil.rmtree(folder, ignore_errors=True)
    return took


def kept(folder: Path, raw: Npy, label: np.ndarray, rounds: int = 3) -> None:
    """Print what the sums that comparisons keep cost beside means, and what they answer in.

    The sums are made on all cores and written; the means are not written, and made once as a loop
    over the files makes them, and once with the layers shared out among all cores.
    """
    store = open_store(folder / "store")
    everything = store.select()
    made: list[float] = []
    means: dict[str, list[float]] = {"one core": [], "all cores": []}
    written: list[float] = []
    for n in range(rounds + 1):
        shutil.rmtree(folder / "store" / "cells", ignore_errors=True)
        borrow_memory(folder)
        begun = time.perf_counter()
        cells = KeptCells.of(everything, person=1, metric="cosine", notes=[])
        assert cells is not None
        cells.prepare(everything.layers)
        times = [time.perf_counter() - begun]
        for work in (lambda: raw.means(label, slice(None)), lambda: raw.means_of_layers(label)):
            borrow_memory(folder)
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        borrow_memory(folder)
        times.append(write_again(folder / "store" / "cells", folder / "written"))
        # The first time reads what nobody has read yet.
        if n:
            for one, several in zip(times, (made, *means.values(), written), strict=True):
                several.append(one)
    size = on_disk(folder / "store" / "cells")
    print(f"cells of everything {np.median(made):.2f} s on all cores ({size / 1e6:.0f} MB written)")
    for cores, those in means.items():
        low, middle, high = np.quantile(np.array(made) / those, [0.25, 0.5, 0.75])
        print(
            f"  class means of all layers from raw .npy on {cores} {np.median(those):.2f} s: "
            f"{middle:.2f} [{low:.2f}, {high:.2f}] ×"
        )
    both = np.array(written) + means["one core"]
    low, middle, high = np.quantile(np.array(made) / both, [0.25, 0.5, 0.75])
    print(
        f"  the same on one core and the cells' files written once more, "
        f"{np.median(written):.2f} s of it: {middle:.2f} [{low:.2f}, {high:.2f}] ×"
    )

    def ask(work: Callable[..., object]) -> float:
        return 1e3 * warm(
            lambda: cells.answer(1, lambda layer, _: work(layer, 0, range(HEADS)), make=False)
        )

    print(
        f"similarities of a class afterwards, a layer: with other classes "
        f"{ask(kept_class_similarities):.1f} ms, of its subjects "
        f"{ask(kept_subject_similarities):.1f} ms, of its views "
        f"{ask(kept_view_similarities):.1f} ms"
    )


def nearest(folder: Path) -> None:
    """Print what the nearest maps take, exactly and through an index, and its recall."""
    one = open_store(folder / "store").select(layer=LAYER + 1, head=HEAD + 1)
    wanted = next(one.iter_maps(1))[1][0, 0, 0]
    exact = warm(lambda: one.nearest(wanted), 3)
    begun = time.perf_counter()
    described = one.index().described
    made = time.perf_counter() - begun
    asked = warm(lambda: one.nearest(wanted, exact=False))
    print(
        f"ten nearest of {len(one):,} maps: exactly {1e3 * exact:.0f} ms; by an index "
        f"{1e3 * asked:.0f} ms (made in {made:.1f} s, {described.probes} of {described.lists} "
        f"lists looked into, recall {100 * described.recall:.1f} %)"
    )


def on_disk(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def small_commits(folder: Path, commits: int) -> None:
    """Print what many commits of one row leave behind, beside the same rows in one commit."""
    site = Site("attend", 1, 2, 16, 16)
    maps = np.full((1, 2, 16, 16), 1 / 16, np.float16)
    sizes, times = {}, []
    for name, each in (("many", True), ("one", False)):
        store = open_store(folder / name, create=True)
        with store.writer("generated", sites=[site], catalogue=CATALOGUE) as writer:
            for n in range(commits):
                begun = time.perf_counter()
                writer.add({"sample": f"v{n}", "label": [n % CLASSES]}, {site.name: maps})
                if each:
                    writer.flush()
                    times.append(time.perf_counter() - begun)
                    if sys.stderr.isatty() and n % 10 == 0:
                        print(f"\r{n:,} of {commits:,} commits", end="", file=sys.stderr)
        sizes[name] = on_disk(folder / name)
    first, last = (1e3 * float(np.median(part)) for part in (times[:100], times[-100:]))
    print(
        f"{commits:,} commits of one row: {sizes['many']:,} bytes, in one commit "
        f"{sizes['one']:,} ({100 * (sizes['many'] / sizes['one'] - 1):+.1f} %); "
        f"{first:.0f} ms each at the beginning, {last:.0f} ms at the end, "
        f"{sum(times):.0f} s in all"
    )


def stop(number: int, frame: object) -> None:
    """End as Ctrl-C does, and let no second signal keep the temporary folder from going."""
    for further in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Print the tables."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=4096)
    parser.add_argument("--only", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--folder", type=Path, help="Where files go; by default a temporary one.")
    parser.add_argument("--commits", type=int, help="Only: so many commits of one row.")
    given = parser.parse_args()
    if given.commits:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            small_commits(Path(name), given.commits)
        return
    single = generated(np.random.default_rng(0), 512)
    pool = single.astype(np.float16)
    names = list(dict.fromkeys(["npy", "store", *given.only]))
    videos = given.videos
    Store.subjects = max(2, round(videos / 828))
    label = np.repeat(np.arange(videos) % CLASSES, SEGMENTS)
    chosen = np.flatnonzero(label == 7)
    one_layer = slice(LAYER, LAYER + 1)
    print(f"{videos} videos, {videos * SEGMENTS * np.prod(MAP) * 2 / 1e9:.2f} GB; torch is loaded: "
          f"{torch.__version__}")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        formats = {name: FORMATS[name](folder / name) for name in names}
        table = Table(names)
        times, fsyncs = append(formats, pool, videos, folder, each=False)
        table.line("append, acknowledged as recorded", times)
        print(f"{'  fsyncs each time':<34}" + "".join(f"{fsyncs[name]:>22}" for name in names))
        begun = time.perf_counter()
        for opened in formats.values():
            opened.close()
        closing = time.perf_counter() - begun
        for opened in formats.values():
            np.testing.assert_array_equal(opened.of_class(chosen), formats["npy"].of_class(chosen))
            np.testing.assert_array_equal(opened.one(videos // 2), formats["npy"].one(videos // 2))
        expected = formats["npy"].means(label, one_layer)
        np.testing.assert_allclose(formats["store"].means(label, one_layer), expected, atol=1e-6)
        table.line(
            "one video's layer, all heads", in_turn(formats, lambda f: f.one(videos // 2), 15)
        )
        table.line(
            f"class × layer × head, {len(chosen)} rows",
            in_turn(formats, lambda f: f.of_class(chosen), 15),
        )
        table.line(
            "class means of a layer", in_turn(formats, lambda f: f.means(label, one_layer), 5)
        )
        print(f"the store merged its small files and closed in {closing:.2f} s")
        opening = warm(lambda: open_store(folder / "store").run_names())
        first = warm(lambda: len(open_store(folder / "store").select()))
        print(f"opening {1e3 * opening:.1f} ms, to the first selection {1e3 * first:.1f} ms")
        store = open_store(folder / "store")
        question = "select class_name, layer, head, count(*) from maps group by all"
        lines = store.sql("select count(*) as n from maps")["n"][0]
        print(f"SQL over {lines:,} lines: {1e3 * warm(lambda: store.sql(question), 3):.0f} ms")
        kept(folder, formats["npy"], label)
        nearest(folder)
        added, before = peak_of_a_scan(folder)
        print(f"memory: a scan of a layer adds {added:.0f} MB to {before:.0f} MB")
        each = {name: FORMATS[name](folder / f"each-{name}") for name in names}
        table = Table(names)
        times, fsyncs = append(each, pool, min(videos, 1024), folder, each=True)
        table.line("append, each 64 acknowledged", times)
        print(f"{'  fsyncs each time':<34}" + "".join(f"{fsyncs[name]:>22}" for name in names))
        for opened in each.values():
            opened.close()
    print(f"{'code':<10}{'B':>3}{'max error':>14}{'JSD, p99':>19}")
    print("\n".join(codes(single)))


if __name__ == "__main__":
    main()
