"""A dashboard that really listens, over a small generated store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.stores import make_store

pytest.importorskip("dash")

from dash import Dash
from tssan_dash.app import create_app, make_server

from tssan_viz.store import AttentionStore


@contextmanager
def listening(app: Dash) -> Iterator[str]:
    """Serve an app on a free port for as long as the block lasts; gives its address."""
    server = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> AttentionStore:
    """Run `narrow`, then the newer run `wide` with two segments and persons and a planted class."""
    folder = tmp_path_factory.mktemp("dashboard") / "attention-store"
    make_store(folder, subjects=3, cameras=(1,), run="narrow")
    return make_store(
        folder,
        subjects=7,
        cameras=(1,),
        segments=2,
        persons=2,
        planted="put on jacket",
        seed=1,
        run="wide",
    )


@pytest.fixture(scope="session")
def app(two_runs: AttentionStore) -> Dash:
    return create_app(two_runs)


@pytest.fixture(scope="session")
def dashboard(app: Dash) -> Iterator[str]:
    with listening(app) as address:
        yield address
