"""One writer at a time in a bucket: there are no locks, so a writer leaves a note that it is there.

The note is an object ``.writers/<token>`` of the store. A writer puts its own, then lists them: of
two that come at once each sees the other's, and at most one goes on. That needs a server which
lists what it has acknowledged (S3 does, and what imitates it), and no conditional puts. A note is
renewed while its writer lives; one that was not for two minutes, or whose process is seen to be
gone on this machine, is of a writer that died, and taken away.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tssan_viz.errors import UserError
from tssan_viz.store.places import BucketPath, Place

_FOLDER = ".writers"
_RENEWED_AFTER = 20.0
_DEAD_AFTER_NS = 120 * 10**9
_ATTEMPTS = 4

# Tokens of this process: one that is not among them was left by another that had its number.
_LIVING: set[str] = set()


class WriterClaim:
    """The note of a bucket's only writer, from its making until `release`.

    Parameters
    ----------
    store
        The store.

    Raises
    ------
    UserError
        Another writer is there; the message says which, and since when.
    OSError
        The server cannot be reached, or refuses.
    """

    def __init__(self, store: BucketPath) -> None:
        self._store = store
        self._token = os.urandom(8).hex()
        self._note = store / _FOLDER / self._token
        self._text = json.dumps(
            {
                "machine": _machine(),
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        ).encode()
        self._over = threading.Event()
        for attempt in range(_ATTEMPTS):
            _LIVING.add(self._token)
            self._note.write_bytes(self._text)
            try:
                others = self._others()
                if not others:
                    break
                if attempt == _ATTEMPTS - 1:
                    raise self._refusal(others[0])
                self._take_back()
            except BaseException:
                self._take_back()
                raise
            # Both of two that came at once have stepped back.
            time.sleep(random.uniform(0.05, 0.3))
        threading.Thread(target=self._renew, name="writer's note", daemon=True).start()

    def _others(self) -> list[dict[str, Any]]:
        """Return the notes of other writers that live, after those of dead ones are gone."""
        folder = self._store / _FOLDER
        now = self._note.stat().st_mtime_ns
        living = []
        for note in folder.iterdir():
            if note.name == self._token:
                continue
            try:
                # Both times are the server's.
                age = now - note.stat().st_mtime_ns
                said = json.loads(note.read_bytes())
            except ValueError:
                said = {}
            except OSError:
                if note.is_file():
                    raise
                # Taken back between the look and the reading.
                continue
            if age > _DEAD_AFTER_NS or _is_gone(said, note.name):
                note.unlink(missing_ok=True)
            else:
                living.append(said)
        return living

    def _refusal(self, other: dict[str, Any]) -> UserError:
        return UserError(
            f"{self._store} is being written by process {other.get('process', 'unknown')} on "
            f"{other.get('host', 'another machine')}, since {other.get('since', 'some time')}. A "
            "store in a bucket takes one writer at a time, and one process of a training "
            "(a folder takes several); wait for it. If that process has died, its claim lapses "
            "two minutes after its last sign of life"
        )

    def holds(self) -> bool:
        """Return whether nobody has taken this writer for dead."""
        return self._note.is_file()

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED_AFTER):
            with contextlib.suppress(OSError):
                if self.holds():
                    self._note.write_bytes(self._text)

    def _take_back(self) -> None:
        _LIVING.discard(self._token)
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)

    def release(self) -> None:
        """Let others write."""
        self._over.set()
        self._take_back()


def _machine() -> str:
    """Return what tells this machine, and this container, from others; empty where nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _is_gone(said: dict[str, Any], token: str) -> bool:
    """Return whether a note's process is known to have ended."""
    machine = _machine()
    if not machine or said.get("machine") != machine:
        return False
    process = said.get("process")
    if process == os.getpid():
        return token not in _LIVING
    try:
        os.kill(int(process or 0), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


@contextlib.contextmanager
def only_writer(store: Place) -> Iterator[None]:
    """Be a bucket's only writer for a while; for folders locks see to it where they are needed."""
    if isinstance(store, Path):
        yield
        return
    claim = WriterClaim(store)
    try:
        yield
    finally:
        claim.release()
