"""Several processes that answer for one store, each with the store opened for itself.

``tssan-viz serve --workers`` ends as ``python -m tssan_dash.workers FD WORKERS``, a process that
has loaded neither the store nor the app: what Lance, Arrow and DuckDB keep in threads would be
left half-done in a forked worker. FD is the socket that listens already.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from flask import Flask

# Carries what is served, the token among it, which others must not see among the arguments.
_SERVED = "TSSAN_DASH_SERVED"
_THREADS = 4
# Longer than between two clicks: a connection that ends just when it is used again is an error to
# some.
_IDLE_SECONDS = 30
# Somebody who ends the server does not wait longer for an answer that is under way.
_LAST_SECONDS = 3


def check_server() -> None:
    """Raise ModuleNotFoundError where what `serve_with_workers` needs is not installed."""
    importlib.import_module("gunicorn" if os.name == "posix" else "waitress")


def serve_with_workers(listening: socket.socket, workers: int, served: dict[str, Any]) -> NoReturn:
    """Turn this process into a server with `workers` processes; it does not return.

    Parameters
    ----------
    listening
        The socket on which it answers.
    workers
        How many processes answer.
    served
        ``store`` (its address) and what else `tssan_dash.create_app` takes.
    """
    listening.set_inheritable(True)
    sys.stdout.flush()
    command = [sys.executable, "-m", __name__, str(listening.fileno()), str(workers)]
    os.execve(sys.executable, command, os.environ | {_SERVED: json.dumps(served)})


def serve_with_threads(listening: socket.socket, workers: int, served: dict[str, Any]) -> None:
    """Answer in one process with as many threads as `workers` would have (for Windows)."""
    import waitress  # type: ignore[import-untyped]

    server = waitress.create_server(
        _application(served), sockets=[listening], threads=_THREADS * workers
    )
    try:
        server.run()  # ends quietly at Ctrl-C
    finally:
        server.close()


def _application(served: dict[str, Any]) -> Flask:
    from tssan_dash.app import create_app
    from tssan_dash.recordings import of_server

    server = create_app(**served).server
    # Waited for at the end: Lance takes the process down where Python goes before its answer comes.
    threading.Thread(target=of_server(server).read_ahead).start()
    return server


def _main(descriptor: str, workers: str) -> None:
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    served = json.loads(os.environ.pop(_SERVED))

    class Server(BaseApplication):
        def load_config(self) -> None:
            settings = {
                "bind": f"fd://{descriptor}",
                "workers": int(workers),
                "worker_class": "gthread",
                "threads": _THREADS,
                "keepalive": _IDLE_SECONDS,
                "graceful_timeout": _LAST_SECONDS,
                "timeout": 120,
                "loglevel": "warning",
                "proc_name": "tssan-viz serve",
                "control_socket_disable": True,
                "when_ready": _end_with_the_terminal,
                "worker_exit": _end_at_once,
            }
            for name, value in settings.items():
                if name in self.cfg.settings:  # some are not in older releases
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            return _application(served)

    Server().run()


def _end_with_the_terminal(_arbiter: Any) -> None:
    """End when the terminal is closed; Gunicorn would begin its workers anew instead."""
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _end_at_once(_arbiter: Any, _worker: Any) -> None:
    """End a worker that has answered; threads of the libraries would be waited for."""
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
