"""Measure the head view's page beside BertViz's: bytes, seconds to the first paint, hover.

Both pages are written from one store by the public functions (`save_html` with a skeleton's poses
at 32 and 300 frames, `to_bertviz` and `bertviz.head_view` with labels only) and are opened in turn
from the disk in the same Chromium. BertViz takes three scripts from the network; here they come
from this disk, and neither their bytes nor their way count. The first paint is the end of the
frame in which the lines are there, counted from the start of the navigation, which begins a second
after the window was opened: until then Chromium loads the pages of which its own toolbar is made,
and they take from either page the processor that it is to be measured with. A hover is the real
pointer moved to the next frame, until the end of the frame that the browser makes of it. Shown are
medians of the repetitions with 95 % bootstrap intervals, and medians of the ratios within a
repetition, of which the lower end counts against a bar. With software rendering: read the ratios.

    npm install --prefix /tmp/scripts --ignore-scripts jquery@2.2.4 d3@5.7.0 requirejs@2.3.6
    python benchmarks/views.py --scripts /tmp/scripts/node_modules
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tssan_viz import save_html, to_bertviz
from tssan_viz.store import (
    AttentionStore,
    Catalogue,
    ClassEntry,
    Site,
    SkeletonInfo,
    StoredSample,
    open_store,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CDN = "https://cdnjs.cloudflare.com/ajax/libs/"
SCRIPTS = {
    "require.js/2.3.6/require.min.js": "requirejs/require.js",
    "d3/5.7.0/d3.min": "d3/dist/d3.min",
    "jquery/2.0.0/jquery.min": "jquery/dist/jquery.min",
}
JOINTS = 25
HOVER_MS, PAINT_S = 16, 1.0
WINDOW_MS = 1000  # what a new window is given to load what it is made of

# A frame ends when a message posted from one of its animation callbacks arrives. Whether the lines
# are there is asked after every callback, as a view may draw them in one of its own.
_WATCH = """
const request = window.requestAnimationFrame.bind(window);
const ended = (then) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => then(performance.now());
  port2.postMessage(0);
};
const drawn = () => document.querySelector("#attention line")
  ?? (document.querySelector("canvas")?.height ?? 150) !== 150;
let found = false;
const look = () => {
  if (found || !drawn()) return;
  found = true;
  ended((at) => {
    window.painted = at;
    console.info("painted");
  });
};
window.requestAnimationFrame = (callback) => request((time) => {
  callback(time);
  look();
});
const watch = () => {
  look();
  if (!found) request(watch);
};
request(watch);
window.hovers = [];
addEventListener("pointermove", () => {
  const from = performance.now();
  request(() => ended((at) => window.hovers.push(at - from)));
}, true);
"""


@dataclass(frozen=True)
class Size:
    """A case: how large the maps are, and what is asked of the page.

    ``smaller`` and ``sooner`` are the bars of the ratios to BertViz, whose page is not made where
    ``beside`` is false.
    """

    layers: int
    heads: int
    frames: int
    poses: bool
    beside: bool
    smaller: float | None = None
    sooner: float | None = None

    def __str__(self) -> str:
        return f"{self.layers} × {self.heads} × {self.frames}²"


SIZES = (
    Size(4, 8, 32, poses=True, beside=True, smaller=10, sooner=3),
    Size(12, 12, 197, poses=False, beside=True, smaller=15),
    Size(4, 8, 300, poses=True, beside=False),
)


@dataclass
class Measured:
    """What was seen of one page: its bytes, seconds to the paint, milliseconds per hover."""

    size: int
    paint: list[float] = field(default_factory=list)
    hover: list[float] = field(default_factory=list)


def record(path: Path, size: Size) -> AttentionStore:
    """Write a run of one video with maps of softmax over normal scores."""
    rng = np.random.default_rng(0)
    t = size.frames
    sites = tuple(Site(f"layer {n + 1}", n + 1, size.heads, t, t) for n in range(size.layers))
    bones = tuple((v, v + 1) for v in range(JOINTS - 1))
    joints = tuple(f"joint {v}" for v in range(JOINTS))
    skeleton = SkeletonInfo("chain", joints, bones, ("centre",) * JOINTS, "m", head_joint=0)
    catalogue = Catalogue("generated", (ClassEntry(0, "walk", "A001"),), skeleton, 30.0)
    sample = StoredSample(
        sample="video",
        label=0,
        class_name="walk",
        class_code="A001",
        subject=1,
        camera=1,
        frames=np.arange(t, dtype=np.float32)[None],
        seconds=np.arange(t, dtype=np.float32)[None] / 30,
        poses=rng.normal(size=(1, 1, t, JOINTS, 3)).astype(np.float32) if size.poses else None,
        present=np.ones((1, 1), bool),
    )
    rows = {
        "sample": ["video"],
        "label": [0],
        "class_name": ["walk"],
        "class_code": ["A001"],
        "subject": [1],
        "camera": [1],
        "segment": [1],
        "person": [1],
        "split": ["test"],
        "step": [0],
        "phase": ["inference"],
    }
    store = open_store(path, create=True)
    with store.writer("benchmark", sites=sites, catalogue=catalogue) as writer:
        scores = np.exp(2 * rng.normal(size=(size.layers, 1, size.heads, t, t)))
        maps = (scores / scores.sum(-1, keepdims=True)).astype(np.float16)
        writer.add(rows, {site.name: maps[i] for i, site in enumerate(sites)})
        writer.add_samples([sample])
    return store


def bertviz_page(store: AttentionStore, path: Path, scripts: Path) -> Path:
    """Write the page that `bertviz.head_view` returns, with its three scripts from the disk."""
    import bertviz

    text = bertviz.head_view(**to_bertviz(store.select()), html_action="return").data
    for address, file in SCRIPTS.items():
        if CDN + address not in text:
            raise SystemExit(f"this BertViz does not load {CDN + address}")
        text = text.replace(CDN + address, (scripts / file).as_uri())
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{text}', encoding="utf-8")
    return path


def look(browser: Browser, path: Path, measured: Measured, hovers: int) -> None:
    """Open a page once, and move the pointer over its frames."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(600_000)
    page.add_init_script(_WATCH)
    page.wait_for_timeout(WINDOW_MS)
    # Told by a message of the page's: a function that waits in it would run before the paint.
    with page.expect_console_message(lambda message: message.text == "painted"):
        page.goto(path.as_uri(), wait_until="commit")
    measured.paint.append(page.evaluate("window.painted") / 1000)
    ours = page.locator("canvas").count() > 0
    box = page.locator("canvas" if ours else "#vis svg").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200)  # on no frame
    page.wait_for_function("() => window.hovers.length === 1")
    for frame in range(hovers):
        if ours:  # frames lie beside each other, 7 to 42 px wide
            page.mouse.move(box["x"] + 60 + 42 * frame, box["y"] + 30)
        else:  # and here below each other
            page.mouse.move(box["x"] + 60, box["y"] + 30 + 22.5 * (frame + 0.5))
        page.wait_for_function("(n) => window.hovers.length === n", arg=frame + 2)
    measured.hover.append(float(np.median(page.evaluate("window.hovers.slice(1)"))))
    context.close()


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % bootstrap interval."""
    given = np.asarray(values)
    draws = np.random.default_rng(0).choice(given, (5000, len(given)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(given)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scripts", type=Path, required=True, help="BertViz's, by npm; see above")
    parser.add_argument("--repetitions", type=int, default=9, help="of the largest BertViz: 3")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    table = Table("maps", "page", "bytes", "first paint, s", "hover, ms", box=None)
    missed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="tssan-") as folder,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for number, size in enumerate(SIZES):
            place = Path(folder) / str(number)
            store = record(place / "store", size)
            paths = {"ours": save_html(store.select(), place / "ours.html")}
            if size.beside:
                paths["BertViz"] = bertviz_page(
                    store, place / "bertviz.html", options.scripts.resolve()
                )
            found = {name: Measured(path.stat().st_size) for name, path in paths.items()}
            large = size.beside and size.frames > 100
            repetitions = min(3, options.repetitions) if large else options.repetitions
            for _ in track(
                range(repetitions), f"{size}", console=Console(stderr=True), transient=True
            ):
                for name, path in paths.items():
                    hovers = 3 if large and name == "BertViz" else 24
                    look(browser, path, found[name], hovers)
            report(table, size, found)
            missed += misses(size, found)
            shutil.rmtree(place)
        version = browser.version
        browser.close()
    Console(width=110).print(table)
    print(f"Chromium {version}; {options.repetitions} repetitions, 3 where BertViz takes long")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


def report(table: Table, size: Size, found: dict[str, Measured]) -> None:
    """Add the lines of a case."""
    for name, seen in found.items():
        paint, hover = interval(seen.paint), interval(seen.hover)
        table.add_row(
            str(size),
            name,
            f"{seen.size:,}",
            "{:.2f} [{:.2f}, {:.2f}]".format(*paint),
            "{:.1f} [{:.1f}, {:.1f}]".format(*hover),
        )
    if "BertViz" in found:
        ratios = [ratio(found, what) for what in ("paint", "hover")]
        cells = ["{:.1f} × [{:.1f}, {:.1f}]".format(*one) for one in ratios]
        table.add_row("", "ratio", f"{found['BertViz'].size / found['ours'].size:.1f} ×", *cells)


def ratio(found: dict[str, Measured], what: str) -> tuple[float, float, float]:
    """Return how many times as long BertViz takes as we do, repetition by repetition."""
    pairs = zip(getattr(found["BertViz"], what), getattr(found["ours"], what), strict=True)
    return interval([theirs / ours for theirs, ours in pairs])


def misses(size: Size, found: dict[str, Measured]) -> list[str]:
    """Say which bars were not met."""
    ours = found["ours"]
    said = []
    if size.smaller and found["BertViz"].size < size.smaller * ours.size:
        said.append(f"{size} is not {size.smaller} × smaller")
    if size.sooner and ratio(found, "paint")[1] < size.sooner:
        said.append(f"{size} is not painted {size.sooner} × sooner")
    if interval(ours.paint)[0] > PAINT_S:
        said.append(f"{size} is painted in more than {PAINT_S:.0f} s")
    if interval(ours.hover)[0] > HOVER_MS:
        said.append(f"{size} redraws in more than {HOVER_MS} ms")
    return said


if __name__ == "__main__":
    main()
