"""What a store holds: sites, samples, the columns of a row, and how a map is coded."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from tssan_viz.errors import UserError
from tssan_viz.site import Site as Site

FORMAT = 2
# Stores of these formats are read; only those of the newest are added to.
READABLE_FORMATS = (1, 2)

# A folder's name may have 255 bytes on the usual file systems.
_LONGEST_NAME = 255

ROW_COLUMNS: dict[str, pa.DataType] = {
    "row_id": pa.int64(),
    "run": pa.string(),
    "step": pa.int64(),
    "epoch": pa.int32(),
    "phase": pa.string(),
    "sample": pa.string(),
    "label": pa.int32(),
    "class_name": pa.string(),
    "class_code": pa.string(),
    "subject": pa.int32(),
    "camera": pa.int32(),
    "setup": pa.int32(),
    "replication": pa.int32(),
    "split": pa.string(),
    "segment": pa.int32(),
    "person": pa.int32(),
    "predicted": pa.int32(),
    "confidence": pa.float32(),
    "correct": pa.bool_(),
    "checksum": pa.uint32(),
    "rank": pa.int16(),
}
ROWS = pa.schema(list(ROW_COLUMNS.items()))

MEASURES = pa.schema(
    [
        ("row_id", pa.int64()),
        ("run", pa.string()),
        ("site", pa.int16()),
        ("stream", pa.string()),
        ("layer", pa.int16()),
        ("head", pa.int16()),
        ("rank", pa.int16()),
    ]
)

SAMPLES = pa.schema(
    [
        ("run", pa.string()),
        ("sample", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("class_code", pa.string()),
        ("subject", pa.int32()),
        ("camera", pa.int32()),
        ("duplicate_of", pa.string()),
        ("frames", pa.list_(pa.float32())),
        ("frames_shape", pa.list_(pa.int32())),
        ("seconds", pa.list_(pa.float32())),
        ("poses", pa.list_(pa.float32())),
        ("poses_shape", pa.list_(pa.int32())),
        ("present", pa.list_(pa.bool_())),
        ("present_shape", pa.list_(pa.int32())),
    ]
)

SITES = pa.schema(
    [
        ("run", pa.string()),
        ("site", pa.int16()),
        ("name", pa.string()),
        ("stream", pa.string()),
        ("layer", pa.int16()),
        ("heads", pa.int16()),
        ("query", pa.int32()),
        ("key", pa.int32()),
        ("kind", pa.string()),
        ("provenance", pa.string()),
    ]
)

# Which heads of a site are stored, for runs that have not all of them.
HEADS = pa.schema([("run", pa.string()), ("site", pa.int16()), ("numbers", pa.list_(pa.int16()))])

CATALOGUE = pa.schema([("run", pa.string()), ("catalogue", pa.string())])

RUNS = pa.schema(
    [
        ("run", pa.string()),
        ("created", pa.timestamp("us", tz="UTC")),
        ("info", pa.string()),
        ("code", pa.string()),
    ]
)

# One line at the end of each session that came to its end: what `verify` counts against.
REPORTS = pa.schema(
    [
        ("run", pa.string()),
        ("rank", pa.int16()),
        ("finished", pa.timestamp("us", tz="UTC")),
        ("rows_added", pa.int64()),
        ("rows_stored", pa.int64()),
        ("report", pa.string()),
    ]
)

# The datasets that all runs share, besides the maps.
SCHEMAS = {
    "runs": RUNS,
    "sites": SITES,
    "heads": HEADS,
    "catalogue": CATALOGUE,
    "rows": ROWS,
    "measures": MEASURES,
    "samples": SAMPLES,
    "reports": REPORTS,
}


@dataclass(frozen=True, eq=False)
class StoredSample:
    """One video as its rows saw it: when its frames were, and what to draw.

    Parameters
    ----------
    sample, label, class_name, class_code, subject, camera
        As in the rows.
    frames : float32 (k, t)
        Source frame numbers of the sampled frames, from 0, fractional where they were interpolated.
    seconds : float32 (k, t) or None
        The same in seconds of the source.
    poses : float32 (m, k, t, v, c) or None
        Joints to draw, in the catalogue's units.
    present : bool (m, k) or None
        Which person is there in which segment.
    duplicate_of
        The sample whose file is the same, if there is one.
    """

    sample: str
    label: int | None
    class_name: str | None
    class_code: str | None
    subject: int | None
    camera: int | None
    frames: np.ndarray = field(repr=False)
    seconds: np.ndarray | None = field(default=None, repr=False)
    poses: np.ndarray | None = field(default=None, repr=False)
    present: np.ndarray | None = field(default=None, repr=False)
    duplicate_of: str | None = None

    def __post_init__(self) -> None:
        for name, dimensions in {"frames": 2, "seconds": 2, "poses": 5, "present": 2}.items():
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value, dtype=np.bool_ if name == "present" else np.float32)
            object.__setattr__(self, name, value)
            if value.ndim != dimensions:
                raise UserError(
                    f"sample {self.sample!r}: {name} has shape {value.shape}, "
                    f"{dimensions} dimensions are expected"
                )
        k, t = self.frames.shape
        if self.seconds is not None and self.seconds.shape != (k, t):
            raise UserError(
                f"sample {self.sample!r}: seconds have shape {self.seconds.shape}, "
                f"frames {(k, t)}; they must agree"
            )
        if self.poses is not None and self.poses.shape[1:3] != (k, t):
            raise UserError(
                f"sample {self.sample!r}: poses (m, k, t, v, c) have shape {self.poses.shape}, "
                f"frames (k, t) {(k, t)}; k and t must agree"
            )


def row_id(
    run: str, step: int, phase: str, sample: str, segment: int | None, person: int | None
) -> int:
    """Return the number of a row: a digest of what makes it one, so that no writer has to count.

    Two different rows of a store of a million rows share a number with a probability of 5e-8;
    within one recording that would be refused as a duplicate.
    """
    text = "\0".join(map(str, (run, step, phase, sample, segment, person)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x7FFF_FFFF_FFFF_FFFF


def map_columns(site: int, heads: Iterable[int]) -> list[str]:
    """Return the names of the columns that hold maps of a site's heads, both counted from 1."""
    return [f"site{site}_head{head}" for head in heads]


def maps_folder(query: int, key: int, rank: int = 0) -> str:
    """Return the folder of a rank's maps of one size, within the run's."""
    return f"{query}x{key}" + (f"-rank{rank}" if rank else "")


def run_folder(run: str) -> str:
    """Return the folder name of a run, whatever characters its name holds.

    Raises
    ------
    UserError
        The name is empty, has spaces around it, or is too long for a folder.
    """
    if not run or run != run.strip():
        raise UserError(f"a run needs a name without spaces around it, given was {run!r}")
    try:
        folder = quote(run, safe=" ")
    except UnicodeEncodeError:
        raise UserError(f"the run name {run!r} is no text that a file can be called by") from None
    if run.startswith("."):
        folder = folder.replace(".", "%2E")
    if len(folder) > _LONGEST_NAME:
        raise UserError(
            f"the run name {run[:40] + '…'!r} is too long: {len(folder)} characters as a folder "
            f"(letters beyond ASCII take several), at most {_LONGEST_NAME} are possible"
        )
    return folder


_HALF_TO_SINGLE = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
# So many values stay in the processor's cache.
_PART = 1 << 16
# The first code that is no finite number, or negative.
_INFINITE = 0x7C00
_RAISED = np.float32(2.0**112)
_SMALLEST = np.array([1 << 13], np.uint32).view(np.float32)


def decode(maps: np.ndarray) -> np.ndarray:
    """Return float16 maps as float32, exactly, several times as fast as NumPy's cast.

    Maps that are float32 already, of a run with another code, are returned as they are.
    """
    if maps.dtype == np.float32:
        return maps
    codes = np.ascontiguousarray(maps).view(np.uint16).reshape(-1)
    values = np.empty(codes.size, np.float32)
    for start in range(0, codes.size, _PART):
        part = slice(start, start + _PART)
        _decode_bits(codes[part].astype(np.uint32), values[part])
    return values.reshape(maps.shape)


def decode_pieces(pieces: Iterable[Sequence[np.ndarray]], rows: int) -> Iterator[np.ndarray]:
    """Go through the maps (n, q, s) of each head as float32 (h, n, q, s), so many rows at a time.

    They share one piece of memory, which stays in the processor's cache: what is yielded is
    overwritten by the next.
    """
    bits, values = np.empty(0, np.uint32), np.empty(0, np.float32)
    for maps in pieces:
        for start in range(0, len(maps[0]), rows):
            few = [those[start : start + rows] for those in maps]
            shape = (len(few), *few[0].shape)
            size = math.prod(shape)
            if len(values) < size:
                bits, values = np.empty(size, np.uint32), np.empty(size, np.float32)
            codes, decoded = bits[:size].reshape(shape), values[:size].reshape(shape)
            is_half = few[0].dtype == np.float16
            for there, raw, those in zip(decoded, codes, few, strict=True):
                if is_half:
                    raw[...] = those.view(np.uint16)
                else:
                    there[...] = those
            if is_half:
                _decode_bits(codes, decoded)
            yield decoded


def _decode_bits(codes: np.ndarray, values: np.ndarray) -> None:
    """Put the values of float16 codes (uint32, which are lost) into `values` (float32)."""
    # A thread may have been told to take numbers as small as `_SMALLEST` for zero.
    if codes.max(initial=0) < _INFINITE and (_SMALLEST * _RAISED)[0]:
        # Shifted to where float32 has its exponent, which counts from another number.
        codes <<= 13
        np.multiply(codes.view(np.float32), _RAISED, out=values)
    else:
        # Every code is in the table: "clip" saves the copy that "raise" makes.
        np.take(_HALF_TO_SINGLE, codes, out=values, mode="clip")


def row_sums(maps: np.ndarray) -> np.ndarray:
    """Return the sums over keys of float16 or float32 maps (…, s), as float32 (…).

    Where torch is loaded, as in every recording, its cast of float16 is used: it is five times as
    fast as `decode`.
    """
    keys = maps.shape[-1]
    lines = maps.reshape(-1, keys)
    sums = np.empty(len(lines), np.float32)
    # So few that torch works alone: waiting for its other threads takes longer than the cast.
    together = max(1, _PART // (2 * keys))
    torch = sys.modules.get("torch") if lines.flags.writeable else None
    ones = np.ones(keys, np.float32)
    for start in range(0, len(lines), together):
        part = lines[start : start + together]
        values = decode(part) if torch is None else torch.from_numpy(part).float().numpy()
        np.matmul(values, ones, out=sums[start : start + together])
    return sums.reshape(maps.shape[:-1])


def named(values: Sequence[object], limit: int = 8) -> str:
    """Return values as words for a message, shortened after `limit` of them."""
    words = [str(value) for value in values[:limit]]
    more = len(values) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")
