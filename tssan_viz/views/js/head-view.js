// The head view: poses as tokens, query frames on one side, key frames on the other, lines between.

import {
  aboveEven, largest, meanOverHeads, strongestLines, strongestOf, weightsPerFrame, weightText,
} from "./attention.js";
import { blend, headColour, hex, inkOn, rgb } from "./colours.js";
import { decode } from "./decode.js";
import { element, oncePerFrame, sizeCanvas, watchWidth } from "./dom.js";
import { layOut } from "./layout.js";
import { bonesBySide, drawPose, fitPoses, poseRatio, poseScale } from "./pose.js";
import { frameLabels, headsOn, initialState, isPresent, take, tokenName, weightsOf } from "./state.js";
import { inks, themeNow, watchTheme } from "./theme.js";

const MOST_LINES = 4000;

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
  const values = decode(manifest.maps, tensors.maps);
  const [heads, queries, keys] = manifest.maps.shape.slice(-3);
  const frames = { query: queries, key: keys };
  const skeleton = readSkeleton(manifest, tensors.poses);
  const state = { ...initialState(manifest) };
  let hover = null;
  let cursor = null;
  let layout = null;
  let width = 0;

  const controls = buildControls(manifest, {
    layer: (layer) => change({ layer }),
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
  root.append(caption(manifest), controls.node, stage, reading);

  const redraw = oncePerFrame(draw);

  function accept(change) {
    take(manifest, state, change);
    controls.show(state);
    redraw();
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  function draw() {
    if (!width) return;
    const segment = manifest.segments.indexOf(state.segment);
    const on = headsOn(manifest, state);
    const weights = weightsOf(manifest, values, state);
    const focus = state.locked ?? hover ?? cursor;
    const other = focus?.side === "key" ? "query" : "key";
    const perHead = weightsPerFrame(weights, [heads, queries, keys], on, focus);
    const mean = meanOverHeads(perHead, frames[other]);
    const even = 1 / keys;
    const least = Math.max(focus ? 0 : even, state.threshold * strongestOf(weights, on, queries * keys));
    const lines = strongestLines(weights, [heads, queries, keys], on, focus, MOST_LINES, least);
    const scene = {
      manifest, state, skeleton, frames, segment, on, focus, other, perHead, mean, lines, even,
      labels: {
        query: frameLabels(manifest, segment, queries),
        key: frameLabels(manifest, segment, keys),
      },
      pair: pairUnderPointer(),
    };
    scene.persons = skeleton ? drawnPersons(scene) : [];
    scene.fit = skeleton ? poseFit(scene) : null;

    layout = layOut(width, frames, state.orientation, scene.fit && poseRatio(scene.fit));
    root.dataset.turned = layout.horizontal ? "sideways" : "upright";
    controls.turned(layout.horizontal);
    const g = sizeCanvas(canvas, layout.width, layout.height);
    paint(g, layout, inks(root), scene);
    reading.replaceChildren(...words(scene));
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
    redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    hover = null;
    redraw();
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
    else redraw();
  });
  stage.addEventListener("blur", () => {
    cursor = null;
    redraw();
  });

  const applyTheme = () => {
    root.dataset.theme = themeNow();
    redraw();
  };
  const endings = [
    watchTheme(applyTheme),
    watchWidth(stage, (now) => {
      width = now;
      redraw();
    }),
    redraw.cancel,
  ];
  applyTheme();
  accept(given);

  return {
    update: accept,
    destroy() {
      for (const end of endings) end();
      root.replaceChildren();
    },
  };
}

export function readSkeleton(manifest, data) {
  if (!manifest.poses || !data) return null;
  return {
    poses: decode(manifest.poses, data),
    shape: manifest.poses.shape,
    groups: bonesBySide(manifest.bones, manifest.sides),
    head: manifest.head_joint,
    yDown: manifest.units === "image",
  };
}

export function caption(manifest) {
  const parts = [element("strong", {}, manifest.sample ?? "")];
  if (manifest.class_name) parts.push(` · ${manifest.class_name}`);
  if (manifest.predicted_name) {
    parts.push(manifest.correct ? " · recognised" : ` · taken for ${manifest.predicted_name}`);
  }
  if (manifest.subject !== null && manifest.subject !== undefined) parts.push(` · subject ${manifest.subject}`);
  if (manifest.camera !== null && manifest.camera !== undefined) parts.push(` · camera ${manifest.camera}`);
  return element("p", { className: "caption" }, ...parts);
}

function buildControls(manifest, on) {
  const node = element("div", { className: "controls" });
  const slider = element("input", {
    type: "range", min: 0, max: manifest.layers.length - 1, step: 1,
    attributes: { "aria-label": "layer" },
  });
  const shownLayer = element("output");
  slider.addEventListener("input", () => on.layer(manifest.layers[Number(slider.value)]));
  const layer = element("label", { className: "control" }, "Layer", slider, shownLayer);
  if (manifest.layers.length === 1) slider.hidden = true;

  const buttons = new Map();
  const chips = element("div", {
    className: "heads", attributes: { role: "group", "aria-label": "attention heads" },
  });
  for (const head of manifest.heads) {
    const colour = headColour(head);
    const button = element("button", {
      type: "button", textContent: String(head), title: `head ${head} (double click: this head alone)`,
      attributes: { "aria-label": `head ${head}` },
    });
    button.style.setProperty("--head", colour);
    button.style.setProperty("--on-head", inkOn(rgb(colour)));
    button.addEventListener("click", () => on.toggle(head));
    button.addEventListener("dblclick", () => on.solo(head));
    buttons.set(head, button);
    chips.append(button);
  }
  const all = element("button", { type: "button", textContent: "all" });
  const none = element("button", { type: "button", textContent: "none" });
  all.addEventListener("click", on.all);
  none.addEventListener("click", on.none);
  node.append(layer, element("div", { className: "control" }, "Heads", chips, all, none));

  const choices = {};
  for (const [key, list] of [["segment", manifest.segments], ["person", manifest.persons]]) {
    if (list.length < 2) continue;
    const select = element("select", { attributes: { "aria-label": key } });
    for (const item of list) select.append(element("option", { value: item, textContent: String(item) }));
    select.addEventListener("change", () => on[key](Number(select.value)));
    choices[key] = select;
    node.append(
      element("label", { className: "control" }, key === "segment" ? "Segment" : "Person", select),
    );
  }
  const least = element("select", {
    title: "lines below this share of the strongest are not drawn", attributes: { "aria-label": "threshold" },
  });
  for (const share of [0, 0.25, 0.5, 0.75, 0.9]) {
    least.append(element("option", { value: share, textContent: share ? `≥ ${100 * share} % of the strongest` : "all" }));
  }
  least.addEventListener("change", () => on.threshold(Number(least.value)));
  node.append(element("label", { className: "control" }, "Lines", least));
  const turn = element("button", { type: "button" });
  turn.addEventListener("click", on.turn);
  node.append(turn);

  return {
    node,
    show(state) {
      slider.value = manifest.layers.indexOf(state.layer);
      slider.setAttribute("aria-valuetext", `layer ${state.layer}`);
      shownLayer.textContent = state.layer;
      least.value = state.threshold;
      for (const [head, button] of buttons) {
        button.setAttribute("aria-pressed", String(state.heads.includes(head)));
      }
      for (const key in choices) choices[key].value = state[key];
      if (choices.person) {
        const k = manifest.segments.indexOf(state.segment);
        for (let m = 0; m < manifest.persons.length; m++) {
          choices.person.options[m].disabled = !isPresent(manifest, k, m);
        }
      }
    },
    turned(horizontal) {
      const text = horizontal ? "turn upright" : "turn sideways";
      if (turn.textContent !== text) turn.textContent = text;
    },
  };
}

/** Paint the whole scene; nothing is kept between two paintings. */
function paint(g, layout, ink, scene) {
  g.clearRect(0, 0, layout.width, layout.height);
  paintLines(g, layout, scene);
  const strongest = scene.mean.reduce((most, weight) => Math.max(most, weight), 0);
  paintBars(g, layout, ink, scene, strongest);
  for (const side of ["query", "key"]) paintFrames(g, layout, ink, scene, side, strongest);
  g.globalAlpha = 1;
  g.fillStyle = ink.muted;
  g.font = `600 11px ${ink.font}`;
  for (const { text, x, y, align } of layout.titles) {
    g.textAlign = align;
    g.textBaseline = "middle";
    g.fillText(text, x, y);
  }
}

function paintLines(g, layout, { lines, focus, on, manifest, pair, even }) {
  const count = lines.weight.length;
  const most = count ? lines.weight[count - 1] : 1;
  // Many lines lie on each other: the more there are, the fainter each is.
  const strength = focus ? 1 : Math.min(1, 3 / Math.sqrt(Math.max(on.length, 1)));
  // In the lines of one frame heads run beside each other; in all lines at once that would be a haze.
  const middle = focus ? (on.length - 1) / 2 : 0;
  const aside = (head) => (middle ? (on.indexOf(head) - middle) / middle : 0);
  g.lineCap = "round";
  for (let i = 0; i < count; i++) {
    const share = aboveEven(lines.weight[i], even, most);
    // Of one frame every line is there to be seen, of all frames those above even attention are.
    let alpha = focus ? 0.12 + 0.88 * share : strength * share;
    if (pair && lines[pair.side][i] !== pair.frame) alpha *= 0.25;
    if (alpha < 0.015) continue;
    g.globalAlpha = alpha;
    g.strokeStyle = headColour(manifest.heads[lines.head[i]]);
    g.lineWidth = focus ? 1 + 2 * share : 0.7 + 1.1 * share;
    g.beginPath();
    layout.line(g, lines.query[i], lines.key[i], aside(lines.head[i]));
    g.stroke();
  }
  g.globalAlpha = 1;
}

/** Beside each attended frame a bar, made of what each head gives to the mean. */
function paintBars(g, layout, ink, { other, frames, perHead, mean, on, manifest }, strongest) {
  if (!strongest) return;
  for (let frame = 0; frame < frames[other]; frame++) {
    let done = 0;
    for (let h = 0; h < on.length; h++) {
      const share = perHead[h][frame] / on.length / strongest;
      const bar = layout.bar(other, frame, done, done + share);
      g.fillStyle = headColour(manifest.heads[on[h]]);
      g.fillRect(bar.x, bar.y, bar.width, bar.height);
      done += share;
    }
  }
}

function paintFrames(g, layout, ink, scene, side, strongest) {
  const { skeleton, frames, focus, other, mean, pair } = scene;
  const labels = scene.labels[side];
  const paper = rgb(ink.paper);
  const accent = rgb(ink.accent);
  const shaded = focus && side === other;
  const poseEvery = layout.poseEvery(side);
  g.font = `11px ${ink.font}`;
  const widest = longest(g, frames[side], labels);
  const labelEvery = layout.labelEvery(side, widest);
  const fit = skeleton?.shape[2] === frames[side] ? scene.fit : null;
  for (let frame = 0; frame < frames[side]; frame++) {
    const box = layout.box(side, frame);
    const chosen = focus?.side === side && focus.frame === frame;
    const paired = pair?.side === side && pair.frame === frame;
    const share = shaded ? aboveEven(mean[frame], scene.even, strongest) : 0;
    const ground = blend(accent, paper, 0.8 * share);
    if (share > 0.004) {
      g.fillStyle = ink.accent;
      g.globalAlpha = 0.8 * share;
      g.fillRect(box.x, box.y, box.width, box.height);
    }
    g.globalAlpha = 1;
    if (chosen) {
      g.fillStyle = ink.panel;
      g.fillRect(box.x, box.y, box.width, box.height);
      g.fillStyle = ink.accent;
      const edge = layout.edge(side, frame);
      g.fillRect(edge.x, edge.y, edge.width, edge.height);
    }
    if (paired) {
      g.strokeStyle = ink.ink;
      g.lineWidth = 1.5;
      g.strokeRect(box.x + 0.75, box.y + 0.75, box.width - 1.5, box.height - 1.5);
    }
    const colour = chosen ? ink.accent : share > 0.004 ? inkOn(ground) : ink.ink;
    if (fit && (frame % poseEvery === 0 || chosen)) {
      const strength = focus && !chosen && !shaded ? 0.4 : 1;
      const under = chosen ? rgb(ink.panel) : ground;
      const shade = (part) => hex(blend(rgb(colour), under, strength * part));
      paintPoses(g, layout, scene, fit, side, frame, shade);
    }
    if (frame % labelEvery === 0 || chosen) {
      const at = layout.label(side, frame);
      g.globalAlpha = 1;
      g.fillStyle = chosen || paired ? ink.ink : share > 0.004 ? inkOn(ground) : ink.muted;
      g.font = `${chosen || paired ? "700 " : ""}11px ${ink.font}`;
      g.textAlign = "center";
      g.textBaseline = "middle";
      g.fillText(short(labels(frame)), at.x, at.y);
    }
  }
}

/** What of a name is drawn beside the lines; the whole is read under them. */
function short(text) {
  return text.length > 8 ? `${text.slice(0, 7)}…` : text;
}

function longest(g, frames, labels) {
  let most = 0;
  for (let frame = 0; frame < frames; frame++) most = Math.max(most, g.measureText(short(labels(frame))).width);
  return most;
}

/** Indices of the persons whose poses are drawn: all who are there in the segment. */
function drawnPersons({ skeleton, segment, manifest }) {
  const all = [];
  for (let m = 0; m < skeleton.shape[0]; m++) {
    if (manifest.poses_present?.[m]?.[segment] ?? true) all.push(m);
  }
  return all;
}

/** Poses keep to the room of their own frame, or neighbours could not be told apart. */
function poseFit({ skeleton, segment, persons }) {
  const { poses, shape, yDown } = skeleton;
  return fitPoses(poses, shape, segment, persons, yDown, 1.05);
}

/** `shade(part)`: the frame's ink mixed with what lies under it, so that strokes may cross unseen. */
function paintPoses(g, layout, scene, fit, side, frame, shade) {
  const { skeleton, segment, persons, manifest, state } = scene;
  const box = layout.poseBox(side, frame);
  const room = { width: layout.poseRoom(side), height: box.height };
  const how = {
    x: box.x + box.width / 2,
    y: box.y + box.height / 2,
    scale: poseScale(fit, room),
    line: Math.min(2.4, Math.max(1.1, box.height / 44)),
  };
  const full = { ...how, ink: shade(1), paler: shade(0.6) };
  const faint = { ...how, line: how.line * 0.7, ink: shade(0.42), paler: shade(0.3) };
  const chosen = (m) => manifest.fused || m === state.person - 1;
  for (const person of [...persons].sort((a, b) => chosen(a) - chosen(b))) {
    drawPose(g, skeleton, fit, { person, segment, frame }, chosen(person) ? full : faint);
  }
}

/** What is seen, in words. */
function words({
  manifest, state, focus, other, perHead, mean, lines, on, labels, segment, pair, even,
}) {
  if (!isPresent(manifest, segment, manifest.persons.indexOf(state.person))) {
    return [`Person ${state.person} is not in segment ${state.segment}: nothing was recorded.`];
  }
  if (!on.length) return ["No head is on."];
  const bound = `even attention (1/${Math.round(1 / even)})`;
  const heads =
    on.length === 1 ? `head ${state.heads[0]}` : `mean of ${on.length} heads`;
  if (!focus) {
    const shown = lines.weight.length;
    const part =
      shown === MOST_LINES
        ? `the ${shown} strongest of ${lines.total} weights, all above ${bound}`
        : `the ${shown} of ${lines.total} weights above ${bound}`;
    const least = state.threshold ? ` and ${Math.round(100 * state.threshold)} % of the strongest` : "";
    return [`Layer ${state.layer}, ${on.length} of ${manifest.heads.length} heads: ${part}${least}; bars: what each key ${tokenName(manifest)} receives (mean over query ${tokenName(manifest)}s).`];
  }
  const seconds = manifest.seconds?.[segment]?.[focus.frame];
  const time = Number.isFinite(seconds) ? ` (${seconds.toFixed(2)} s)` : "";
  const locked = state.locked ? ", locked" : "";
  const who = element("strong", {}, `${focus.side === "query" ? "Query" : "Key"} ${tokenName(manifest)} ${labels[focus.side](focus.frame)}${time}${locked}`);
  if (pair) {
    const query = focus.side === "query" ? focus.frame : pair.frame;
    const key = focus.side === "query" ? pair.frame : focus.frame;
    const each = on.map((h, i) => `head ${manifest.heads[h]} ${weightText(perHead[i][pair.frame])}`);
    return [who, ` · query ${labels.query(query)} → key ${labels.key(key)}: ${heads} ${weightText(mean[pair.frame])} (${each.join(", ")})`];
  }
  const does = focus.side === "query" ? `attends to key ${tokenName(manifest)}s` : `is attended by query ${tokenName(manifest)}s`;
  const top = largest(mean, 5).map((frame) => `${labels[other](frame)}: ${weightText(mean[frame])}`);
  return [who, ` ${does} ${top.join(" · ")} — layer ${state.layer}, ${heads}; shade: above ${bound}.`];
}
