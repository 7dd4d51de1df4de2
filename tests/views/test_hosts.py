"""The widget in the notebooks that people have: the browser and Python see each other's choices."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tests.conftest import stays_on_this_machine
from tests.stores import make_store

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient
    from playwright.sync_api import Browser, Page

TOKEN = "only-for-this-test"
VIEW = "view = tssan_viz.head_view(tssan_viz.open_store({store!r}).select(), layer=1)"
PAINTED = "() => (document.querySelector('.tssan-view canvas')?.height ?? 150) !== 150"
FRAMES = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "store"
    make_store(path, subjects=1, cameras=(1,), replications=(1,), classes=("reading",))
    return path


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which a server reads and writes nothing of the person who runs the test."""
    folders = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "XDG_CONFIG_HOME": "home/config",
        "XDG_CACHE_HOME": "home/cache",
        "XDG_STATE_HOME": "home/state",
        "XDG_DATA_HOME": "home/share",
    }
    for folder in folders.values():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    return os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()}


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    """A page whose test fails on a request that leaves the machine or a fault of the module.

    The module is imported from a blob; faults of the host's own scripts are its own affair.
    """
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    strangers: list[str] = []
    faults: list[str] = []

    def on_request(request: Any) -> None:
        if not stays_on_this_machine(request.url):
            strangers.append(request.url)

    context.on("request", on_request)
    page.on("pageerror", lambda error: faults.append(error.stack or ""))
    yield page
    context.close()
    faults = [stack for stack in faults if "blob:" in stack]
    assert not strangers, f"the page asked other machines: {strangers}"
    assert not faults, f"the page reported errors: {faults}"


@contextmanager
def serving(
    command: Callable[[int], list[str]], probe: str, env: dict[str, str], cwd: Path
) -> Iterator[str]:
    """Start a server on a free port of this machine; give its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = cwd / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *command(port)], cwd=cwd, env=env, stdout=out, stderr=out
        )
    try:
        for _ in range(480):
            assert server.poll() is None, f"the server ended: {log.read_text()}"
            try:
                urllib.request.urlopen(f"{address}{probe}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.25)
        else:
            pytest.fail(f"the server does not answer: {log.read_text()}")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def click_frame(page: Page, side: str, frame: int) -> None:
    """Click where a frame lies, when frames go along the page."""
    canvas = page.locator(".tssan-view canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    step = min((box["width"] - 54) / FRAMES, 96)
    x = box["x"] + 48 + (frame + 0.5) * step
    y = box["y"] + 60 if side == "query" else box["y"] + box["height"] - 60
    page.mouse.click(x, y)


def colours(page: Page) -> int:
    """Count the colours of the canvas."""
    return page.evaluate(
        """() => { const c = document.querySelector('.tssan-view canvas');
        const data = new Uint32Array(
            c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);
        return new Set(data).size; }"""
    )


# ---- Jupyter


@contextmanager
def kernel_of(runtime: Path) -> Iterator[BlockingKernelClient]:
    """Talk to the one kernel that the server started, beside the browser."""
    from jupyter_client.blocking.client import BlockingKernelClient

    for _ in range(240):
        if found := list(runtime.glob("kernel-*.json")):
            break
        time.sleep(0.25)
    (connection,) = found
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    # A busy machine misses heartbeats, which would pass for a dead kernel.
    client.start_channels(hb=False)
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()


def python(client: BlockingKernelClient, code: str) -> str:
    """Run code in the notebook's kernel; return what it printed."""
    printed: list[str] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        assert message["msg_type"] != "error", content

    client.execute_interactive(code, store_history=False, output_hook=hook, timeout=120)
    return "".join(printed).strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "path"), [("jupyterlab", "/lab/tree"), ("notebook", "/notebooks")]
)
def test_jupyter_runs_the_widget(
    visitor: Page, store: Path, home: dict[str, str], tmp_path: Path, module: str, path: str
) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell("import tssan_viz\n" + VIEW.format(store=str(store)) + "\nview")
    ]
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    nbformat.write(notebook, work / "view.ipynb")

    def command(port: int) -> list[str]:
        return [
            module, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={work}", "--LabApp.extension_manager=readonly",
            "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]  # fmt: skip

    with serving(command, f"/api?token={TOKEN}", home, tmp_path) as address:
        visitor.goto(f"{address}{path}/view.ipynb?token={TOKEN}")
        cell = visitor.locator(".jp-CodeCell .cm-content").first
        cell.wait_for()
        with kernel_of(Path(home["JUPYTER_RUNTIME_DIR"])) as client:
            # Lab asks whether to rebuild itself where an extension came after it.
            if visitor.locator(".jp-Dialog").count():
                visitor.keyboard.press("Escape")
            cell.click()
            visitor.keyboard.press("Shift+Enter")
            visitor.wait_for_function(PAINTED)
            assert colours(visitor) > 50
            assert visitor.locator(".jp-OutputArea iframe").count() == 0, "the widget, not a page"

            click_frame(visitor, "query", 5)
            visitor.locator(".reading", has_text="locked").first.wait_for()
            for _ in range(120):
                if (found := python(client, "print(view.locked)")) != "None":
                    break
                time.sleep(0.25)
            assert found == "{'side': 'query', 'frame': 5}"

            python(client, "view.locked, view.layer = {'side': 'key', 'frame': 9}, 2")
            visitor.locator(".reading", has_text="Key frame 23").first.wait_for()
            slider = visitor.get_by_role("slider").first
            assert slider.get_attribute("aria-valuetext") == "layer 2"

        visitor.keyboard.press("Escape")
        visitor.keyboard.press("Control+s")
        for _ in range(120):
            saved = nbformat.read(work / "view.ipynb", as_version=4)
            if saved.cells[0].outputs:
                break
            time.sleep(0.25)
    # The server is gone; what it saved shows the page.
    visitor.goto(exported(saved, tmp_path / "saved.html"))
    visitor.frame_locator("iframe").locator(".reading", has_text="Layer 1").wait_for()


# ---- marimo


MARIMO = """
import marimo

app = marimo.App(width="full")


@app.cell
def _():
    import marimo as mo
    import tssan_viz
    return mo, tssan_viz


@app.cell
def _(mo, tssan_viz):
    {view}
    widget = mo.ui.anywidget(view)
    widget
    return view, widget


@app.cell
def _(mo, view, widget):
    back = mo.ui.button(
        label="from Python",
        on_click=lambda _: view.set_trait("locked", {{"side": "key", "frame": 9}}),
    )
    mo.vstack([mo.md(f"Python has {{widget.value['locked']}}"), back])
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.mark.slow
def test_marimo_runs_the_widget(
    visitor: Page, store: Path, home: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("marimo")
    (tmp_path / "app.py").write_text(MARIMO.format(view=VIEW.format(store=str(store))))

    def command(port: int) -> list[str]:
        return [
            "marimo", "run", "app.py", "--headless", "--host", "127.0.0.1", "--port", str(port),
            "--token", "--token-password", TOKEN,
        ]  # fmt: skip

    with serving(command, "/health", home, tmp_path) as address:
        visitor.goto(f"{address}?access_token={TOKEN}")
        canvas = visitor.locator(".tssan-view canvas").first
        canvas.wait_for()
        visitor.get_by_text("Python has None").wait_for()
        click_frame(visitor, "query", 5)
        visitor.get_by_text("Python has {'side': 'query', 'frame': 5}").wait_for()
        visitor.get_by_role("button", name="from Python").click()
        visitor.locator(".reading", has_text="Key frame 23").first.wait_for()


# ---- no kernel, no widget manager


def exported(notebook: Any, path: Path) -> str:
    """Export a notebook as a page that asks nobody; return its address."""
    # nbconvert's own page asks CDNs for MathJax and require.js, for which these have no use.
    exporter = HTMLExporter(mathjax_url="", require_js_url="")
    path.write_text(exporter.from_notebook_node(notebook)[0], encoding="utf-8")
    return path.as_uri()


def test_a_saved_notebook_shows_the_page(page: Page, store: Path, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell("import tssan_viz\n" + VIEW.format(store=str(store)) + "\nview")
    ]
    # With the state of its widgets in it, nbconvert's page loads a widget manager from a CDN.
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=False)
    client.execute(cwd=str(tmp_path))
    (output,) = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in output.data
    page.goto(exported(notebook, tmp_path / "saved.html"))
    inside = page.frame_locator("iframe")
    inside.locator(".reading", has_text="Layer 1").wait_for()
    inside.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    inside.get_by_text("Query frame 0 (0.00 s), locked").wait_for()
