"""Where a store's files lie: in a folder, or in a bucket of S3 under a common beginning.

A folder is a `pathlib.Path`, at no cost. A bucket answers to the same words, as far as a store
needs them, through pyarrow; Lance reaches it by itself. Both take the address, the region and the
key from where everything that speaks S3 does: ``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, else the profile or the machine's role.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, S3FileSystem

# `pathlib.Path` makes one slash of two.
_BUCKET = re.compile("s3:/{1,2}(?=[^/]|$)")
# A server that does not answer is named within seconds, not asked for minutes.
_CONNECT_SECONDS = 4
_REQUEST_SECONDS = 5
_ATTEMPTS = 2


@dataclass(frozen=True)
class Stat:
    """Size and time of an object, named as `os.stat` names them."""

    st_size: int
    st_mtime_ns: int


class BucketPath(PurePosixPath):
    """A place in a bucket, in the words of `pathlib.Path`.

    ``BucketPath("/bucket/beginning")`` is printed as ``s3://bucket/beginning``. An object is
    written as a whole or not at all, and is safe once the server has said so: nothing is ever torn,
    and nothing needs an fsync. There are no folders, only names that begin alike.

    Raises
    ------
    FileNotFoundError
        By what reads an object that is not there.
    OSError
        By everything, where the server cannot be reached or refuses; see `reason`.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return f"s3:/{text}" if text.startswith("/") else text

    @property
    def key(self) -> str:
        """The bucket and the name in it."""
        return "/".join(self.parts[1:])

    def absolute(self) -> BucketPath:
        """Return the same: a bucket is the same from everywhere."""
        return self

    def has_bucket(self) -> bool:
        """Return whether its bucket is there."""
        return BucketPath("/", self.parts[1]).exists()

    def _info(self) -> FileInfo:
        return _server().get_file_info(self.key)

    def exists(self) -> bool:
        """Return whether an object has this name, or one's begins with it."""
        from pyarrow.fs import FileType

        return self._info().type != FileType.NotFound

    def is_file(self) -> bool:
        """Return whether an object has this name."""
        return bool(self._info().is_file)

    def stat(self) -> Stat:
        """Return an object's size and time."""
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(f"{self} is not there")
        return Stat(info.size, info.mtime_ns)

    def read_bytes(self) -> bytes:
        """Return an object."""
        with self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return an object as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str) -> IO[bytes]:
        """Open an object for reading."""
        assert mode == "rb"
        opened: Any = _server().open_input_file(self.key)
        return opened

    def write_bytes(self, data: bytes) -> None:
        """Write an object as a whole."""
        with _server().open_output_stream(self.key) as file:
            file.write(data)

    def touch(self) -> None:
        """Write an empty object."""
        self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object."""
        try:
            _server().delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a name needs no folder."""

    def _entries(self, *, recursive: bool = False) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.key, allow_not_found=True, recursive=recursive)
        return list(_server().get_file_info(selector))

    def iterdir(self) -> Iterator[BucketPath]:
        """Go through the names one level below."""
        for info in self._entries():
            yield BucketPath("/", info.path)

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Go through the names that fit a pattern, level by level."""
        first, _, rest = pattern.partition("/")
        for entry in self.iterdir():
            if fnmatch.fnmatchcase(entry.name, first):
                if rest:
                    yield from entry.glob(rest)
                else:
                    yield entry

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each object one level below, by its name."""
        return {info.base_name: info.size for info in self._entries() if info.is_file}


Place: TypeAlias = Path | BucketPath


def place(url: str) -> Place:
    """Return the place that a text names.

    Parameters
    ----------
    url
        A folder (``~`` and ``file://`` are understood) or ``s3://bucket/beginning``.

    Raises
    ------
    UserError
        It names neither.
    """
    text = url.removeprefix("file://")
    if begins := _BUCKET.match(text):
        parts = [part for part in text[begins.end() :].split("/") if part]
        if not parts:
            raise UserError(f"{url}: no bucket is named; a store is at s3://BUCKET/NAME")
        return BucketPath("/", *parts)
    if "://" in text:
        raise UserError(f"{url}: a store is a folder, or s3://BUCKET/NAME")
    return Path(text).expanduser()


def size_of(where: Place) -> int:
    """Return the bytes that all files below a place take."""
    if isinstance(where, BucketPath):
        return sum(info.size or 0 for info in where._entries(recursive=True) if info.is_file)
    return sum(file.stat().st_size for file in where.rglob("*") if file.is_file())


def remove_all(where: Place) -> None:
    """Delete everything below a place, as far as it can be deleted."""
    if isinstance(where, BucketPath):
        if where.exists():
            _server().delete_dir(where.key)
        return
    shutil.rmtree(where, ignore_errors=True)


def beside(store: Place) -> Path:
    """Return the folder for what is worked out of a store and can be worked out again.

    It is the store itself. What is kept for one in a bucket is read at random places and in part,
    and so lies in a folder of this machine: ``$XDG_CACHE_HOME/tssan-viz`` or
    ``~/.cache/tssan-viz``.
    """
    if isinstance(store, Path):
        return store
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = f"{_endpoint() or 'amazonaws.com'} {store}"
    return Path(base, "tssan-viz", hashlib.sha256(named.encode()).hexdigest()[:16])


# ---- the server


def reason(error: OSError) -> str:
    """Return what a server, or the way to it, said, in a line."""
    text = error.strerror or str(error)
    _, aws, said = text.partition("AWS Error ")
    return (said if aws else text).split("; Details")[0].split("\n")[0].rstrip(".")


def unreachable(where: Place, error: OSError) -> UserError:
    """Return the error for a store that could not be asked."""
    if isinstance(where, Path):
        return UserError(f"{where} cannot be read: {error.strerror or error}")
    if isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in str(error):
        return UserError(f"{where}: there is no bucket {where.parts[1]!r} {_where()}")
    return UserError(
        f"{where} cannot be reached {_where()}: {reason(error)}. The address "
        "is $AWS_ENDPOINT_URL (none: Amazon S3), the key is $AWS_ACCESS_KEY_ID with "
        "$AWS_SECRET_ACCESS_KEY, or that of the profile"
    )


def _where() -> str:
    return f"at {_endpoint() or 'Amazon S3'}"


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def lance_options(where: Place) -> dict[str, str] | None:
    """Return what Lance has to know besides the environment; None for a folder."""
    if isinstance(where, Path):
        return None
    options = {
        "client_max_retries": "3",
        "client_retry_timeout": "20",
        "connect_timeout": f"{_CONNECT_SECONDS}s",
    }
    endpoint = _endpoint()
    if endpoint:
        options["aws_endpoint"] = endpoint
        options["allow_http"] = str(endpoint.startswith("http://")).lower()
    return options


def lance_address(where: Place) -> str | Path:
    """Return a place as Lance takes it."""
    return where if isinstance(where, Path) else str(where)


def _server() -> S3FileSystem:
    key = os.environ.get("AWS_ACCESS_KEY_ID")
    return _connected(_endpoint(), _region(), key, os.getpid())


@functools.lru_cache(maxsize=4)
def _connected(
    endpoint: str | None, region: str | None, key: str | None, process: int
) -> S3FileSystem:
    """Return the way to a server, one for each address and key that the environment ever named."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        background_writes=False,
        allow_delayed_open=True,
    )
