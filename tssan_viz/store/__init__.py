"""The attention store: a folder of Lance datasets that explains itself.

A store holds several runs. Of each run it keeps the maps, one line of scalars per row (one segment
of one person of one video), measures, what a view needs of the videos, and a catalogue: class
names, codes and aliases, and the skeleton. No part of it imports torch.

On the disk::

    attention-store/
        store.json                    that this is a store, its format, and what wrote it
        runs/  sites/  catalogue/     one line per run; per site; the classes and skeleton of a run
        rows/                         one line of scalars per row, with a checksum of its maps
        measures/                     one line per row × layer × head
        samples/                      one line per video: frame numbers, seconds, poses
        reports/                      one line per recording that came to its end
        maps/<run>/<query>x<key>/     row_id, a list per site and head (site1_head1, …), and a
                                      checksum for each of these; "-rank1" … for other processes
        cells/<run>/                  sums that comparisons keep (see
                                      `tssan_viz.comparison.kept_files`); may be deleted at any time

In a bucket (``s3://bucket/name``) it is the same, with two differences: one writer at a time,
whose note lies in ``.writers/`` (see `tssan_viz.store.claims`), and the cells are kept on the
machine that compares (see `tssan_viz.store.places.beside`).

Beside each dataset's files lies `_digests` (see `tssan_viz.store.digests`). How a list is coded is
the matter of `tssan_viz.store.codes`.
"""

from __future__ import annotations

import json
import os

from tssan_viz.errors import UserError
from tssan_viz.store.catalogue import Catalogue, ClassEntry, SkeletonInfo, UnknownClass
from tssan_viz.store.opened import StoreNotFound
from tssan_viz.store.places import BucketPath, place, unreachable
from tssan_viz.store.reader import AttentionStore
from tssan_viz.store.schema import FORMAT, READABLE_FORMATS, Site, StoredSample
from tssan_viz.store.tables import StoreDamaged, StoreWriteError
from tssan_viz.store.writer import RunWriter, prepare_folder
from tssan_viz.version import VERSION

__all__ = [
    "AttentionStore",
    "Catalogue",
    "ClassEntry",
    "RunWriter",
    "Site",
    "SkeletonInfo",
    "StoreDamaged",
    "StoreNotFound",
    "StoreWriteError",
    "StoredSample",
    "UnknownClass",
    "open_store",
]

DEFAULT_STORE = "attention-store"


def open_store(
    url: str | os.PathLike[str] | None = None, *, create: bool = False
) -> AttentionStore:
    """Open an attention store.

    Parameters
    ----------
    url
        Its folder (``~`` and ``file://`` are understood), or its place in a bucket,
        ``s3://bucket/name``. None: ``$TSSAN_STORE``, else ``./attention-store``.
    create
        Make it if it is not there.

    Raises
    ------
    StoreNotFound
        There is none, and `create` is false; the message says what makes one.
    UserError
        The folder holds something else, or a store of a later format; it cannot be read, or the
        bucket cannot be reached.
    """
    source = ""
    if url is None:
        if os.environ.get("TSSAN_STORE"):
            url, source = os.environ["TSSAN_STORE"], " (from $TSSAN_STORE)"
        else:
            url = DEFAULT_STORE
    path = place(os.fspath(url))
    if create:
        prepare_folder(path)
    marker = path / "store.json"
    try:
        there = marker.is_file()
        if not there and isinstance(path, BucketPath) and not path.has_bucket():
            raise FileNotFoundError
    except OSError as error:
        raise unreachable(path, error) from error
    if not there:
        raise StoreNotFound(
            f"there is no attention store at {path}{source}. `tssan-viz demo` makes one to try, "
            "`tssan-viz record --run RUN --data DIR` records a trained network; "
            "--store or $TSSAN_STORE names another place"
        )
    try:
        described = json.loads(marker.read_text(encoding="utf-8"))
        version, writer = int(described["format"]), described.get("written_by")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{marker} cannot be read as a store's description: {error}") from error
    if version not in READABLE_FORMATS:
        needed = f"tssan-viz {writer} or later" if writer else "a newer tssan-viz"
        raise UserError(
            f"{path} has store format {version}, which {needed} reads; "
            f"this tssan-viz {VERSION} reads up to {FORMAT}"
        )
    return AttentionStore(path)
