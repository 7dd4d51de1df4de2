// The head view: poses as tokens, query frames on one side, key frames on the other, lines between.

import {
  countMissing, evenBound, largest, meanOverHeads, strongestLines, strongestOf, weightsPerFrame, weightText,
} from "./attention.js";
import { element, oncePerFrame, sizeCanvas, watchWidth } from "./dom.js";
import { buildControls, caption } from "./head-controls.js";
import { filmstrip, paint, printer } from "./head-painting.js";
import { words } from "./head-words.js";
import { layOut } from "./layout.js";
import { fitPoses, personsIn, poseRatio, readSkeleton } from "./pose.js";
import { frameLabels, headsOn, initialState, readMaps, stepsOf, take, weightsOf } from "./state.js";
import { inks, themeNow, watchTheme } from "./theme.js";

// More lines than these only lie on each other; what is left out is said.
const MOST_OF_ALL = 1000;
const MOST_OF_ONE = 256;

/**
 * Show a head view in `root`.
 *
 * @param {HTMLElement} root an empty element of class tssan-view
 * @param {object} manifest of the payload (view "head")
 * @param {{maps: any, poses: any}} tensors as the host has them
 * @param {object} given state; what is missing or does not fit the manifest is taken from `initialState`
 * @param {(change: object) => void} onState called with what the user changed
 * @returns {{update: (state: object) => void, destroy: () => void}}
 */
export function headView(root, manifest, tensors, given, onState) {
  const values = readMaps(manifest, tensors);
  const [heads, queries, keys] = manifest.maps.shape.slice(-3);
  const frames = { query: queries, key: keys };
  const skeleton = readSkeleton(manifest, tensors.poses);
  const state = { ...initialState(manifest) };
  let hover = null;
  let cursor = null;
  let width = 0;
  let scene = null; // what does not change under the pointer, until something else changes
  let layout = null;
  let prints = null;
  let context = null;
  let atRest = null;
  let stripOf = null;

  const controls = buildControls(manifest, stepsOf(manifest, values), {
    layer: (layer) => change({ layer }),
    step: (step) => change({ step }),
    toggle: (head) => {
      const on = manifest.heads.filter((h) => state.heads.includes(h) !== (h === head));
      change({ heads: on });
    },
    solo: (head) => {
      const alone = state.heads.length === 1 && state.heads[0] === head;
      change({ heads: alone ? [...manifest.heads] : [head] });
    },
    all: () => change({ heads: [...manifest.heads] }),
    none: () => change({ heads: [] }),
    segment: (segment) => change({ segment }),
    person: (person) => change({ person }),
    threshold: (threshold) => change({ threshold }),
    turn: () => change({ orientation: layout?.horizontal ? "vertical" : "horizontal" }),
  });
  const canvas = element("canvas");
  const stage = element(
    "div",
    {
      className: "stage",
      tabIndex: 0,
      attributes: {
        role: "application",
        "aria-label":
          "Attention between frames. Arrow keys move between frames and sides, Enter locks a frame, Escape frees it.",
      },
    },
    canvas,
  );
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  const strip = element("canvas", { className: "strip", attributes: { role: "img" } });
  root.append(caption(manifest), controls.node, stage, reading);

  const repaint = oncePerFrame(draw);
  const redraw = () => {
    scene = null;
    repaint();
  };

  /** What of the state the scene is made of: all but what is pointed at and played. */
  const shown = () => JSON.stringify({ ...state, locked: null, frame: 0 });

  function accept(change) {
    const before = shown();
    take(manifest, state, change);
    controls.show(state);
    if (shown() === before) repaint();
    else redraw();
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  /** All that the pointer does not change. */
  function prepare() {
    const segment = manifest.segments.indexOf(state.segment);
    const on = headsOn(manifest, state);
    const weights = weightsOf(manifest, values, state);
    const even = 1 / keys;
    const persons = skeleton ? personsIn(manifest, skeleton, segment) : [];
    const fit = skeleton && fitPoses(skeleton.poses, skeleton.shape, segment, persons, skeleton.yDown, 1.05);
    layout = layOut(width, frames, state.orientation, fit && poseRatio(fit));
    scene = {
      manifest, state, skeleton, frames, segment, on, weights, even, persons, fit, layout, plane: queries * keys,
      least: state.threshold && state.threshold * strongestOf(weights, on, queries * keys),
      missing: countMissing(weights, on, queries * keys),
      labels: { query: frameLabels(manifest, segment, queries), key: frameLabels(manifest, segment, keys) },
      ink: inks(root),
    };
    root.dataset.turned = layout.horizontal ? "sideways" : "upright";
    controls.turned(layout.horizontal);
    context = sizeCanvas(canvas, layout.width, layout.height);
    prints = printer(scene, canvas.width / layout.width);
    atRest = see(null, null);
  }

  /** What is seen with a frame in focus, or with none. */
  function see(focus, pair) {
    const { weights, on, even, least } = scene;
    const other = focus?.side === "key" ? "query" : "key";
    const size = [heads, queries, keys];
    const perHead = weightsPerFrame(weights, size, on, focus);
    const above = Math.max(focus ? 0 : evenBound(even), least);
    const lines = strongestLines(weights, size, on, focus, focus ? MOST_OF_ONE : MOST_OF_ALL, above);
    return { focus, pair, other, perHead, mean: meanOverHeads(perHead, frames[other]), lines };
  }

  function draw() {
    if (!width) return;
    if (!scene) prepare();
    const focus = state.locked ?? hover ?? cursor;
    const seen = focus ? see(focus, pairUnderPointer()) : atRest;
    paint(context, scene, seen, prints);
    reading.replaceChildren(...words(scene, seen));
    showStrip(seen);
  }

  /** Under the words of a locked frame: its strongest frames as poses. */
  function showStrip(seen) {
    const best = state.locked && skeleton ? largest(seen.mean, Math.max(3, Math.min(12, Math.floor(width / 62) - 1))) : [];
    if (!best.length) {
      strip.remove();
      stripOf = null;
      return;
    }
    if (stripOf?.scene === scene && same(stripOf.locked, state.locked)) return;
    stripOf = { scene, locked: state.locked };
    const film = filmstrip(scene, seen, best, weightText);
    strip.setAttribute("aria-label", `The locked frame and the ${best.length} that have most to do with it`);
    film.draw(sizeCanvas(strip, film.width, film.height));
    root.append(strip);
  }

  function pairUnderPointer() {
    const at = hover ?? cursor;
    return state.locked && at && at.side !== state.locked.side ? at : null;
  }

  function frameAt(event) {
    if (!layout) return null;
    const box = canvas.getBoundingClientRect();
    return layout.frameAt(event.clientX - box.left, event.clientY - box.top);
  }

  function same(one, other) {
    return one?.side === other?.side && one?.frame === other?.frame;
  }

  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const at = frameAt(event);
    canvas.style.cursor = at ? "pointer" : "";
    if (same(at, hover)) return;
    hover = at;
    repaint();
  });
  canvas.addEventListener("pointerleave", () => {
    hover = null;
    repaint();
  });
  canvas.addEventListener("click", (event) => {
    const at = frameAt(event);
    cursor = at;
    hover = null;
    change({ locked: same(at, state.locked) ? null : at });
  });
  stage.addEventListener("keydown", (event) => {
    const along = layout?.horizontal ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
    const across = layout?.horizontal ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
    const at = state.locked ?? cursor;
    const last = frames[at?.side ?? "query"] - 1;
    let next;
    if (along.includes(event.key)) {
      const frame = at ? at.frame + (event.key === along[1] ? 1 : -1) : 0;
      next = { side: at?.side ?? "query", frame: Math.min(Math.max(frame, 0), last) };
    } else if (across.includes(event.key)) {
      const side = event.key === across[0] ? "query" : "key";
      next = { side, frame: Math.min(at?.frame ?? 0, frames[side] - 1) };
    } else if (event.key === "Home" || event.key === "End") {
      next = { side: at?.side ?? "query", frame: event.key === "Home" ? 0 : last };
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (cursor || state.locked) change({ locked: state.locked ? null : cursor });
      return;
    } else if (event.key === "Escape") {
      cursor = hover = null;
      change({ locked: null });
      return;
    } else return;
    event.preventDefault();
    hover = null; // a pointer that rests on a frame does not hide where the keys went
    cursor = next;
    if (state.locked) change({ locked: next });
    else repaint();
  });
  stage.addEventListener("blur", () => {
    cursor = null;
    repaint();
  });

  const applyTheme = () => {
    root.dataset.theme = themeNow();
    redraw();
  };
  // Theme and state first: the width is asked of what then stays as it is.
  applyTheme();
  accept(given);
  const endings = [
    watchTheme(applyTheme),
    watchWidth(stage, (now) => {
      width = now;
      redraw();
    }),
    repaint.cancel,
  ];
  // At once: the browser's next frame is the first that shows anything, and would only wait for this.
  repaint.cancel();
  draw();

  return {
    update: accept,
    destroy() {
      for (const end of endings) end();
      root.replaceChildren();
    },
  };
}
