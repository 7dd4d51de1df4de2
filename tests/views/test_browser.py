"""The views in a real browser: a page from the disk, a notebook's widget, an iframe, heat maps."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pytest

import tssan_viz
from tests.stores import make_store
from tssan_viz.errors import UserError
from tssan_viz.views import head_view_payload, heatmaps_payload, module_path
from tssan_viz.views import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

NASTY = "<script>window.taken = true</script><img src=x onerror='window.taken = true'>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    """Two segments of two persons, 16 frames, 4 heads, 2 layers."""
    path = tmp_path_factory.mktemp("browser") / "store"
    return make_store(path, subjects=2, cameras=(1,), replications=(1,), segments=2, persons=2)


@pytest.fixture
def shown(page: Page, tmp_path: Path) -> Callable[..., Page]:
    """Write a payload as a page, open it from the disk and wait until it is drawn."""

    def show(payload: Any, state: dict[str, Any] | None = None) -> Page:
        path = tmp_path / "view.html"
        path.write_text(page_of(payload, state), encoding="utf-8")
        page.goto(path.as_uri())
        drawn(page)
        return page

    return show


def drawn(page: Page) -> None:
    """Wait until what was asked for has been painted."""
    page.wait_for_function("() => (document.querySelector('canvas')?.height ?? 150) !== 150")
    page.evaluate(
        "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    )


def pixels(page: Page) -> str:
    drawn(page)
    return page.evaluate("() => document.querySelector('canvas').toDataURL()")


def colours(page: Page) -> set[str]:
    """Return the opaque colours of the canvas as rrggbb."""
    drawn(page)
    code = """() => {
        const c = document.querySelector('canvas');
        const rgba = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const found = new Set();
        for (let i = 0; i < rgba.length; i += 4) {
            if (rgba[i + 3] === 255) found.add((rgba[i] << 16) | (rgba[i + 1] << 8) | rgba[i + 2]);
        }
        return Array.from(found);
    }"""
    return {f"{colour:06x}" for colour in page.evaluate(code)}


def reading(page: Page) -> str:
    drawn(page)
    return page.locator(".reading").inner_text()


def frame_at(page: Page, side: str, frame: int, frames: int = 16) -> tuple[float, float]:
    """Return where a frame lies on the screen, when frames go along the page."""
    box = page.locator(".stage canvas").bounding_box()
    assert box is not None
    step = min((box["width"] - 54) / frames, 96)
    return box["x"] + 48 + (frame + 0.5) * step, (
        box["y"] + 60 if side == "query" else box["y"] + box["height"] - 60
    )


def on(page: Page) -> list[str]:
    return page.locator(".heads button[aria-pressed=true]").all_inner_texts()


def weights(payload: Any) -> np.ndarray:
    return np.frombuffer(payload.buffers["maps"], "<f2").reshape(payload.manifest["maps"]["shape"])


# ---- the stand-alone page


def test_hover_click_and_escape(shown, store) -> None:
    payload = head_view_payload(store.select())
    page = shown(payload)
    at_rest = pixels(page)
    assert "4 of 4 heads" in reading(page)
    page.mouse.move(*frame_at(page, "query", 5))
    hovered = pixels(page)
    assert hovered != at_rest
    assert reading(page).startswith("Query frame 13 (0.42 s) attends to key frames")
    page.mouse.click(*frame_at(page, "query", 5))
    page.mouse.move(5, 5)
    assert "locked" in reading(page)
    locked = pixels(page)
    assert locked != at_rest
    row = weights(payload)[0, 0, 1, :, 5].astype(np.float32).mean(axis=0)
    best = int(row.argmax())
    assert f"key frames {payload.manifest['labels'][0][best]}: {row[best]:.3f}" in reading(page)

    page.mouse.move(*frame_at(page, "key", 7))
    each = weights(payload)[0, 0, 1, :, 5, 7].astype(float)
    assert f"→ key 18: mean of 4 heads {each.mean():.3f} (head 1 {each[0]:.3f}" in reading(page)
    page.mouse.move(5, 5)

    page.locator(".stage").focus()
    page.keyboard.press("Escape")
    assert "locked" not in reading(page)
    page.mouse.click(*frame_at(page, "key", 3))
    assert reading(page).startswith("Key frame 8 (0.25 s), locked is attended by")
    page.mouse.click(*frame_at(page, "key", 3))
    page.mouse.move(5, 5)
    assert "locked" not in reading(page)


def test_keyboard_alone(shown, store) -> None:
    page = shown(head_view_payload(store.select()))
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    assert reading(page).startswith("Query frame 0")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert reading(page).startswith("Key frame 5")
    assert "locked" not in reading(page)
    page.keyboard.press("Enter")
    assert "Key frame 5 (0.17 s), locked" in reading(page)
    page.keyboard.press("End")
    assert "Key frame 38 (1.25 s), locked" in reading(page)
    page.keyboard.press("ArrowRight")
    assert "Key frame 38 (1.25 s), locked" in reading(page)
    page.keyboard.press("Escape")
    assert "2 of 4" not in reading(page)
    page.mouse.move(*frame_at(page, "query", 5))
    assert reading(page).startswith("Query frame 13")
    page.keyboard.press("ArrowRight")
    assert reading(page).startswith("Query frame 0")
    page.keyboard.press("ArrowRight")
    assert reading(page).startswith("Query frame 3")
    page.mouse.move(5, 5)
    page.keyboard.press("Tab")
    page.locator(".heads button").first.focus()
    page.keyboard.press("Space")
    assert on(page) == ["2", "3", "4"]


def test_heads_layers_segments_persons(shown, store) -> None:
    page = shown(head_view_payload(store.select()))
    seen = {pixels(page)}

    def changed() -> bool:
        now = pixels(page)
        fresh = now not in seen
        seen.add(now)
        return fresh

    page.get_by_role("button", name="head 2", exact=True).click()
    assert on(page) == ["1", "3", "4"]
    assert changed()
    page.get_by_role("button", name="head 3", exact=True).dblclick()
    assert on(page) == ["3"]
    assert changed()
    page.get_by_role("button", name="head 3", exact=True).dblclick()
    assert on(page) == ["1", "2", "3", "4"]
    page.get_by_role("button", name="none").click()
    assert on(page) == []
    assert reading(page) == "No head is on."
    assert changed()
    page.get_by_role("button", name="all").click()
    assert on(page) == ["1", "2", "3", "4"]
    slider = page.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "layer 2"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "layer 1"
    assert reading(page).startswith("Layer 1")
    assert changed()
    page.get_by_label("segment").select_option("2")
    assert changed()
    page.get_by_label("person").select_option("2")
    assert changed()
    page.get_by_role("button", name="turn upright").click()
    assert changed()
    page.get_by_role("button", name="turn sideways").click()
    assert not changed()


def test_light_and_dark(shown, store) -> None:
    state = {"locked": {"side": "query", "frame": 4}, "orientation": "horizontal"}
    page = shown(head_view_payload(store.select()), state)
    light = colours(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.querySelector('.tssan-view').dataset.theme === 'dark'")
    dark = colours(page)
    # the accent of the locked frame
    assert "82aaff" in dark - light
    assert "1d5fd1" in light - dark
    alpha = page.evaluate(
        "() => document.querySelector('canvas').getContext('2d').getImageData(2, 2, 1, 1).data[3]"
    )
    assert alpha == 0, "the ground belongs to the page"


@pytest.mark.parametrize(
    ("says", "theme"),
    [
        ("document.documentElement.dataset.mantineColorScheme = 'dark'", "dark"),
        ("document.body.dataset.jpThemeLight = 'false'", "dark"),
        ("document.body.classList.add('vscode-dark')", "dark"),
        ("document.documentElement.dataset.theme = 'dark'", "dark"),
    ],
)
def test_the_hosts_theme_is_followed(shown, store, says: str, theme: str) -> None:
    page = shown(head_view_payload(store.select()))
    before = pixels(page)
    page.evaluate(f"() => {{ {says} }}")
    page.wait_for_function(
        f"() => document.querySelector('.tssan-view').dataset.theme === '{theme}'"
    )
    assert pixels(page) != before


def test_widths(shown, store) -> None:
    page = shown(head_view_payload(store.select()))
    stage = """() => {
        const stage = document.querySelector('.stage');
        return [stage.scrollWidth, stage.clientWidth];
    }"""
    for width in (1400, 900, 400, 300):
        page.set_viewport_size({"width": width, "height": 700})
        drawn(page)
        page.wait_for_function("() => document.querySelector('canvas').clientWidth < innerWidth")
        inner, outer = page.evaluate(stage)
        assert inner <= outer + 1, f"nothing is cut off at {width} px"
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.get_by_role("button", name="turn sideways").is_visible()
    page.get_by_role("button", name="turn sideways").click()
    drawn(page)
    assert page.get_by_role("button", name="turn upright").is_visible()


def test_touch(browser, store, tmp_path: Path) -> None:
    path = tssan_viz.save_html(store.select(), tmp_path / "view.html")
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        drawn(page)
        box = page.locator(".stage canvas").bounding_box()
        page.touchscreen.tap(box["x"] + 60, box["y"] + 60)
        assert "Query frame 0 (0.00 s), locked" in reading(page)
    finally:
        context.close()


def test_fine_screens_get_fine_lines(browser, store, tmp_path: Path) -> None:
    path = tssan_viz.save_html(store.select(), tmp_path / "view.html")
    context = browser.new_context(viewport={"width": 1000, "height": 800}, device_scale_factor=2)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        drawn(page)
        ratio = (
            "() => { const c = document.querySelector('canvas'); return c.width / c.clientWidth; }"
        )
        assert page.evaluate(ratio) == pytest.approx(2, abs=0.01)
    finally:
        context.close()


def test_labels_are_text(shown, store) -> None:
    payload = head_view_payload(store.select())
    payload.manifest.update(sample=NASTY, class_name=NASTY, predicted_name=NASTY, correct=False)
    payload.manifest["labels"] = [[NASTY] * 16] * 2
    page = shown(payload, {"locked": {"side": "query", "frame": 1}})
    assert page.locator(".caption").inner_text().count(NASTY) == 3
    assert NASTY in reading(page)
    assert page.evaluate("() => window.taken") is None
    assert page.locator("#view script, #view img").count() == 0


def test_nothing_is_asked_of_anyone(shown, store, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown(head_view_payload(store.select()))
    asked = [url for url in asked if not url.startswith("blob:")]
    assert len(asked) == 1
    assert asked[0].startswith("file:")


@pytest.fixture
def faulty_page(browser) -> Any:
    """A page on which a fault may show."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def test_the_policy_refuses_what_is_not_the_pages_own(faulty_page, store, tmp_path: Path) -> None:
    faulty_page.goto(tssan_viz.save_html(store.select(), tmp_path / "view.html").as_uri())
    drawn(faulty_page)
    refused, taken = faulty_page.evaluate(
        """async () => {
            const refused = [];
            const note = (event) => refused.push(event.effectiveDirective);
            document.addEventListener('securitypolicyviolation', note);
            new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=';
            const script = document.createElement('script');
            script.textContent = 'window.taken = true';
            document.body.append(script);
            await new Promise((go) => setTimeout(go, 200));
            return [refused, window.taken];
        }"""
    )
    assert sorted(refused) == ["img-src", "script-src-elem"]
    assert taken is None


def test_a_payload_that_does_not_fit_is_said(faulty_page, store, tmp_path: Path) -> None:
    payload = head_view_payload(store.select())
    payload.manifest["maps"]["shape"][0] = 7
    path = tmp_path / "view.html"
    path.write_text(page_of(payload))
    faulty_page.goto(path.as_uri())
    message = faulty_page.locator(".message")
    message.wait_for()
    assert "bytes came" in message.inner_text()


# ---- heat maps


def test_heat_maps(shown) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.dirichlet(np.ones(20), size=(2, 20)).astype(np.float32)
    titles = ["put on jacket", NASTY, "difference"]
    kinds = ["seq", "seq", "div"]
    page = shown(heatmaps_payload(np.stack([one, two, one - two]), titles, kinds))
    assert page.locator("figcaption").all_inner_texts() == titles
    assert page.evaluate("() => window.taken") is None
    scales = page.locator(".scale").all_inner_texts()
    assert len(scales) == 2
    assert f"{max(one.max(), two.max()):.3f}" in scales[0]
    assert f"{np.abs(one - two).max():.3f}" in scales[1]
    before = pixels(page)
    canvas = page.locator("canvas").nth(0)
    box = canvas.bounding_box()
    size = box["width"] - 38
    page.mouse.move(
        box["x"] + 34 + (12.5 / 20) * size, box["y"] + (3.5 / 20) * (box["height"] - 30)
    )
    words = reading(page)
    assert words.startswith("query frame 3 → key frame 12: put on jacket")
    value = float(words.split("put on jacket ")[1].split(" ")[0])
    assert value == pytest.approx(one[3, 12], rel=1e-4)
    assert float(words.rsplit(" ", 1)[1]) == pytest.approx((one - two)[3, 12], rel=1e-4)
    assert pixels(page) != before
    page.locator(".maps").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert reading(page).startswith("query frame 4 → key frame 11: put on jacket")
    page.mouse.move(5, 5)
    page.keyboard.press("Escape")
    assert reading(page) == ""
    assert pixels(page) == before
    hottest = np.unravel_index(one.argmax() if one.max() > two.max() else two.argmax(), one.shape)
    which = 0 if one.max() > two.max() else 1
    colour = page.evaluate(
        """([n, q, s]) => { const c = document.querySelectorAll('.maps canvas')[n];
            const r = c.width / c.clientWidth, w = c.clientWidth - 38, h = c.clientHeight - 30;
            return Array.from(c.getContext('2d').getImageData(
                (34 + (s + .5) * w / 20) * r, (q + .5) * h / 20 * r, 1, 1).data); }""",
        [which, int(hottest[0]), int(hottest[1])],
    )
    last = matplotlib.colormaps["viridis"](255, bytes=True)
    assert colour == [int(part) for part in last], "the largest value has the last colour"


def test_heat_maps_of_heads_stand_in_even_rows(shown, store) -> None:
    _, maps = next(store.select(layer=2).iter_maps(rows=1))
    page = shown(heatmaps_payload(maps[0, 0], [f"head {h}" for h in range(1, 5)]))
    for width, columns in ((1400, 4), (800, 2), (400, 1)):
        page.set_viewport_size({"width": width, "height": 900})
        drawn(page)
        page.wait_for_function(
            """columns => {
                const maps = [...document.querySelectorAll("canvas")].slice(0, 4);
                const places = maps.map((map) => Math.round(map.getBoundingClientRect().x));
                return new Set(places).size === columns
                    && document.documentElement.scrollWidth <= innerWidth;
            }""",
            arg=columns,
        )
        boxes = [canvas.bounding_box() for canvas in page.locator("canvas").all()[:4]]
        assert len({round(box["x"]) for box in boxes}) == columns
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_heat_maps_mark_the_frame_that_a_head_view_holds(shown) -> None:
    payload = heatmaps_payload(np.full((1, 8, 8), 0.125), ["head 1"])
    plain = pixels(shown(payload))
    marked = {
        side: pixels(shown(payload, {"locked": {"side": side, "frame": 3}}))
        for side in ("query", "key")
    }
    assert len({plain, *marked.values()}) == 3
    assert pixels(shown(payload, {"locked": {"side": "key", "frame": 8}})) == plain


# ---- the notebook


HOST = """<!doctype html><meta charset="utf-8"><body><div id="cell" style="width: 1100px"></div>
<script type="module">
const start = JSON.parse(%s);
const tensor = (text) => {
  if (text === null) return null;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const shifted = new Uint8Array(bytes.length + 1);  // as in a message, where it lies anywhere
  shifted.set(bytes, 1);
  return new DataView(shifted.buffer, 1);
};
const state = { ...start.state, maps: tensor(start.maps), poses: tensor(start.poses) };
const listeners = {};
let dirty = {};
const model = {
  get: (key) => state[key],
  set(key, value) { state[key] = value; dirty[key] = value; },
  save_changes() { const changes = dirty; dirty = {}; python(changes); },
  on(event, f) { (listeners[event] ??= []).push(f); },
  off(event, f) { listeners[event] = (listeners[event] ?? []).filter((g) => g !== f); },
};
window.fromPython = (key, value) => {
  state[key] = value;
  for (const f of listeners["change:" + key] ?? []) f();
};
window.listening = () => Object.values(listeners).flat().length;
const url = URL.createObjectURL(new Blob([start.esm], { type: "text/javascript" }));
const widget = (await import(url)).default;
window.end = await widget.render({ model, el: document.getElementById("cell") });
</script>"""


@pytest.fixture
def hosted(page: Page, store, tmp_path: Path) -> tuple[Page, Any]:
    """The real widget's state in a page that speaks anywidget's protocol, linked both ways."""
    widget = tssan_viz.head_view(store.select(), layer=1, locked={"side": "query", "frame": 2})
    state = widget.get_state()
    buffers = {
        key: None if state[key] is None else base64.b64encode(state[key]).decode()
        for key in ("maps", "poses")
    }
    kept = ("manifest", "layer", "heads", "locked", "segment", "person", "orientation")
    start = {"esm": state["_esm"], "state": {key: state[key] for key in kept}, **buffers}
    page.expose_function("python", lambda changes: widget.set_state(changes))
    widget.observe(
        lambda change: page.evaluate(
            "([k, v]) => fromPython(k, v)", [change["name"], change["new"]]
        ),
        names=["layer", "heads", "locked", "segment", "person", "orientation"],
    )
    path = tmp_path / "host.html"
    path.write_text(HOST % json.dumps(json.dumps(start)).replace("</", "<\\/"), encoding="utf-8")
    page.goto(path.as_uri())
    drawn(page)
    return page, widget


def test_the_widget_begins_with_pythons_state(hosted) -> None:
    page, widget = hosted
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "layer 1"
    assert reading(page).startswith("Query frame 5 (0.17 s), locked")
    assert widget.get_state()["_esm"] == module_path().read_text()


def test_python_sees_what_was_clicked(hosted) -> None:
    page, widget = hosted
    page.mouse.click(*frame_at(page, "key", 9))
    page.wait_for_function("() => document.querySelector('.reading').textContent.startsWith('Key')")
    assert widget.locked == {"side": "key", "frame": 9}
    page.get_by_role("button", name="head 1", exact=True).click()
    page.get_by_label("person").select_option("2")
    drawn(page)
    assert widget.heads == [2, 3, 4]
    assert widget.person == 2
    page.locator(".stage").focus()
    page.keyboard.press("Escape")
    drawn(page)
    assert widget.locked is None


def test_the_view_shows_what_python_sets(hosted, tmp_path: Path) -> None:
    page, widget = hosted
    before = pixels(page)
    widget.layer = 2
    widget.heads = [4, 2]
    widget.locked = {"side": "key", "frame": 15}
    assert on(page) == ["2", "4"]
    assert reading(page).startswith("Key frame 38 (1.25 s), locked")
    assert "layer 2, mean of 2 heads" in reading(page)
    assert pixels(page) != before
    widget.orientation = "vertical"
    drawn(page)
    assert page.get_by_role("button", name="turn sideways").is_visible()
    path = widget.save_html(tmp_path / "now.html")
    page.goto(path.as_uri())
    drawn(page)
    assert reading(page).startswith("Key frame 38 (1.25 s), locked")


def test_a_closed_widget_leaves_nothing(hosted) -> None:
    page, _ = hosted
    assert page.evaluate("() => listening()") > 0
    page.evaluate("() => end()")
    assert page.evaluate("() => listening()") == 0
    assert page.evaluate("() => document.getElementById('cell').childElementCount") == 0


def test_what_cannot_be_is_refused(store) -> None:
    import traitlets

    widget = tssan_viz.head_view(store.select())
    for name, value in [
        ("layer", 3),
        ("heads", [1, 9]),
        ("person", 3),
        ("locked", {"side": "key", "frame": 16}),
        ("locked", {"side": "middle", "frame": 1}),
        ("orientation", "diagonal"),
        ("maps", b""),
    ]:
        with pytest.raises(traitlets.TraitError):
            setattr(widget, name, value)
    assert widget.state["layer"] == 2


def test_a_host_without_widgets_shows_the_page(page: Page, store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no state 'head'; did you mean 'heads'\?"):
        tssan_viz.head_view(store.select(), head=3)
    widget = tssan_viz.head_view(store.select(), heads=[3])
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    path = tmp_path / "saved.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'><body>{data['text/html']}")
    page.goto(path.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator("canvas").wait_for()
    assert inside.locator(".heads button[aria-pressed=true]").all_inner_texts() == ["3"]
    inside.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    inside.get_by_text("Query frame 0 (0.00 s), locked").wait_for()
