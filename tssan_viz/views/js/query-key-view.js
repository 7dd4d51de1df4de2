// Queries and keys of one head: where they lie beside each other, and what each dimension adds.

import { aboveEven, largest, weightText } from "./attention.js";
import { HEAD_COLOURS } from "./colours.js";
import { decode } from "./decode.js";
import { element, sizeCanvas } from "./dom.js";
import { paintedIn } from "./frame.js";
import { drawPose, fitPoses, personsIn, poseScale, readSkeleton } from "./pose.js";
import { frameLabels, headsOn, initialState, take, weightsOf } from "./state.js";
import { inks } from "./theme.js";

const KEY = HEAD_COLOURS[5];
const PAD = 26;
const FOOT = 54;

/** What each dimension adds to the score q · k / √d. */
export function products(q, k) {
  const root = Math.sqrt(q.length);
  return Array.from(q, (value, i) => (value * k[i]) / root);
}

/**
 * Show queries and keys in `root`; see `headView` for the arguments.
 *
 * Manifest, besides that of the head view: query_vectors and key_vectors f2 [k, m, layer, h, t, d], plane f4
 * [k, m, layer, h, 2, t, 2] (queries, keys), explained [k][m][layer][h].
 */
export function queryKeyView(root, manifest, tensors, given, onState) {
  const values = decode(manifest.maps, tensors.maps);
  const queries = decode(manifest.query_vectors, tensors.query_vectors);
  const keys = decode(manifest.key_vectors, tensors.key_vectors);
  const plane = decode(manifest.plane, tensors.plane);
  const [, persons, layers, heads, frames, dims] = manifest.query_vectors.shape;
  const skeleton = readSkeleton(manifest, tensors.poses);
  const state = initialState(manifest);
  let hover = null;
  let place = null;

  const choices = {};
  const controls = element("div", { className: "controls" });
  const offered = { layer: manifest.layers, head: manifest.heads, segment: manifest.segments, person: manifest.persons };
  for (const [name, list] of Object.entries(offered)) {
    if (list.length < 2 && name !== "layer" && name !== "head") continue;
    const select = element("select", { attributes: { "aria-label": name } });
    for (const item of list) select.append(element("option", { value: item, textContent: String(item) }));
    select.addEventListener("change", () => {
      const chosen = Number(select.value);
      change(name === "head" ? { heads: [chosen] } : { [name]: chosen });
    });
    choices[name] = select;
    controls.append(element("label", { className: "control" }, name[0].toUpperCase() + name.slice(1), select));
  }
  const canvas = element("canvas");
  const stage = element("div", { className: "stage", tabIndex: 0, attributes: {
    role: "application",
    "aria-label": "Queries and keys in a plane. Left and right go through the frames, up and down change between queries and keys, Enter locks, Escape ends.",
  } }, canvas);
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  const title = [manifest.sample, manifest.class_name].filter(Boolean).join(" · ");
  root.append(element("p", { className: "caption query-key-title" }, element("strong", {}, title)), controls, stage, reading);
  const view = paintedIn(root, stage, draw);

  const headIndex = () => headsOn(manifest, state)[0] ?? 0;
  const spot = () => {
    const k = manifest.segments.indexOf(state.segment);
    const m = manifest.persons.indexOf(state.person);
    return ((k * persons + m) * layers + manifest.layers.indexOf(state.layer)) * heads + headIndex();
  };
  const vector = (of, frame) => {
    const start = (spot() * frames + frame) * dims;
    return of.subarray(start, start + dims);
  };
  const point = (side, frame) => {
    const start = ((spot() * 2 + (side === "key" ? 1 : 0)) * frames + frame) * 2;
    return [plane[start], plane[start + 1]];
  };
  /** What a token has to do with each token of the other side. */
  function weightsOfToken(at) {
    const start = headIndex() * frames * frames;
    const weights = weightsOf(manifest, values, state).subarray(start, start + frames * frames);
    return Float32Array.from({ length: frames }, (_, i) =>
      at.side === "query" ? weights[at.frame * frames + i] : weights[i * frames + at.frame]);
  }

  function draw(width) {
    const ink = inks(root);
    const beside = width >= 720;
    const side = Math.round(Math.min(beside ? width * 0.5 : width, 460));
    const barsWide = beside ? Math.min(width - side - 24, 560) : width;
    const barsTall = 330;
    const tall = beside ? Math.max(side, barsTall) : side + barsTall + 8;
    const g = sizeCanvas(canvas, width, tall);
    g.font = `11px ${ink.font}`;
    const focus = hover ?? state.locked;
    paintPlane(g, ink, side, focus);
    const pair = focus && pairOf(focus);
    const bars = beside ? { x: side + 24, y: 6 } : { x: 4, y: side + 8 };
    if (pair) paintBars(g, ink, { ...bars, wide: barsWide - 8 }, pair);
    else {
      g.fillStyle = ink.muted;
      g.textAlign = "left";
      g.fillText("Point at a query or a key: what each dimension adds is shown here.", bars.x, bars.y + 16, barsWide - 8);
    }
    reading.replaceChildren(...words(focus, pair));
  }

  /** The token in focus with the one of the other side that it has most to do with. */
  function pairOf(focus) {
    const weights = weightsOfToken(focus);
    const [best] = largest(weights, 1);
    const pair = focus.side === "query" ? { query: focus.frame, key: best } : { query: best, key: focus.frame };
    return { ...pair, weight: weights[best] };
  }

  function paintPlane(g, ink, side, focus) {
    let most = 0;
    for (const of of ["query", "key"]) {
      for (let i = 0; i < frames; i++) most = Math.max(most, ...point(of, i).map(Math.abs));
    }
    const middle = side / 2;
    const scale = most ? (middle - PAD) / most : 1;
    place = { at: (of, i) => { const [x, y] = point(of, i); return [middle + x * scale, middle - y * scale]; }, side };
    g.strokeStyle = ink.line;
    g.lineWidth = 1;
    g.strokeRect(4.5, 4.5, side - 9, side - 9);
    const other = focus?.side === "query" ? "key" : "query";
    const weights = focus && weightsOfToken(focus);
    const strongest = focus ? Math.max(...weights) : 0;
    const shareOf = (i) => aboveEven(weights[i], 1 / frames, strongest);
    if (focus) {
      const [x, y] = place.at(focus.side, focus.frame);
      for (const i of largest(weights, Math.min(12, frames))) {
        const [px, py] = place.at(other, i);
        g.strokeStyle = ink.muted;
        g.globalAlpha = 0.15 + 0.75 * shareOf(i);
        g.lineWidth = 0.5 + 2.5 * shareOf(i);
        g.beginPath();
        g.moveTo(x, y);
        g.lineTo(px, py);
        g.stroke();
      }
      g.globalAlpha = 1;
    }
    for (const of of ["key", "query"]) {
      g.fillStyle = of === "query" ? ink.accent : KEY;
      for (let i = 0; i < frames; i++) {
        const [x, y] = place.at(of, i);
        const here = focus?.side === of && focus.frame === i;
        const share = focus && of === other ? shareOf(i) : 0;
        const r = here ? 7 : 3.5 + 3.5 * share;
        g.globalAlpha = focus && !here && !(share > 0.5) ? 0.45 : 0.95;
        g.beginPath();
        if (of === "query") g.arc(x, y, r, 0, 2 * Math.PI);
        else g.rect(x - r, y - r, 2 * r, 2 * r);
        g.fill();
        if (state.locked?.side === of && state.locked.frame === i) {
          g.globalAlpha = 1;
          g.strokeStyle = ink.ink;
          g.lineWidth = 2;
          g.stroke();
        }
      }
    }
    g.globalAlpha = 1;
    g.textBaseline = "middle";
    g.textAlign = "left";
    for (const [mark, name, colour, x] of [["●", "queries", ink.accent, 12], ["■", "keys", KEY, 82]]) {
      g.fillStyle = colour;
      g.fillText(mark, x, 16);
      g.fillStyle = ink.muted;
      g.fillText(name, x + 13, 16);
    }
    if (focus) paintPose(g, ink, focus);
  }

  /** The pose of the token in focus, beside its point and inside the plane. */
  function paintPose(g, ink, { side: of, frame }) {
    const [x, y] = place.at(of, frame);
    const room = { width: 58, height: 76 };
    const left = x + room.width + 14 < place.side ? x + 12 : x - 12 - room.width;
    const top = Math.min(Math.max(y - room.height / 2, 6), place.side - room.height - 6);
    g.fillStyle = ink.paper;
    g.strokeStyle = ink.line;
    g.lineWidth = 1;
    if (!skeleton) return;
    g.beginPath();
    g.roundRect(left, top, room.width, room.height, 5);
    g.fill();
    g.stroke();
    oneFrame(g, ink, frame, left + room.width / 2, top + room.height / 2, { width: room.width - 8, height: room.height - 8 });
  }

  function oneFrame(g, ink, frame, x, y, room) {
    if (!skeleton || skeleton.shape[2] !== frames) return;
    const segment = manifest.segments.indexOf(state.segment);
    const there = personsIn(manifest, skeleton, segment);
    const fit = fitPoses(skeleton.poses, skeleton.shape, segment, there, skeleton.yDown, 1);
    const how = { x, y, scale: poseScale(fit, room), line: 1.4, ink: ink.ink, paler: ink.muted };
    for (const person of there) drawPose(g, skeleton, fit, { person, segment, frame }, how);
  }

  function paintBars(g, ink, { x, y, wide }, pair) {
    const q = vector(queries, pair.query);
    const k = vector(keys, pair.key);
    const label = frameLabels(manifest, manifest.segments.indexOf(state.segment), frames);
    const rows = [
      [`query of frame ${label(pair.query)}`, q, ink.accent, pair.query],
      [`key of frame ${label(pair.key)}`, k, KEY, pair.key],
      ["query × key / √d", products(q, k), ink.ink, null],
    ];
    const posed = skeleton && skeleton.shape[2] === frames && wide > 260;
    const left = x + (posed ? FOOT : 0);
    const step = (wide - (posed ? FOOT : 0)) / dims;
    rows.forEach(([name, row, colour, frame], n) => {
      const top = y + n * 108;
      const most = row.reduce((high, value) => Math.max(high, Math.abs(value)), 0);
      g.fillStyle = ink.muted;
      g.textAlign = "left";
      g.fillText(`${name}; longest bar ${most.toPrecision(2)}`, left, top + 8, wide);
      if (frame !== null && posed) oneFrame(g, ink, frame, x + FOOT / 2 - 4, top + 58, { width: FOOT - 10, height: 74 });
      g.strokeStyle = ink.line;
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(left, top + 58.5);
      g.lineTo(left + step * dims, top + 58.5);
      g.stroke();
      g.fillStyle = colour;
      for (let i = 0; i < dims; i++) {
        const high = most ? (row[i] / most) * 38 : 0;
        g.fillRect(left + i * step, top + 58 - Math.max(high, 0), Math.max(step - 1, 1), Math.abs(high));
      }
    });
  }

  function words(focus, pair) {
    const head = manifest.heads[headIndex()];
    const k = manifest.segments.indexOf(state.segment);
    const m = manifest.persons.indexOf(state.person);
    const share = manifest.explained[k][m][manifest.layers.indexOf(state.layer)][headIndex()];
    if (!focus) return [`Layer ${state.layer}, head ${head}. The plane holds ${Math.round(100 * share)} % of the variance of ${dims} dimensions.`];
    const label = frameLabels(manifest, k, frames);
    const score = products(vector(queries, pair.query), vector(keys, pair.key)).reduce((sum, value) => sum + value, 0);
    const locked = !hover && state.locked ? ", locked," : "";
    const says = focus.side === "query"
      ? `Query of frame ${label(focus.frame)}${locked} attends most to the key of frame ${label(pair.key)}`
      : `Key of frame ${label(focus.frame)}${locked} gets most from the query of frame ${label(pair.query)}`;
    return [`${says}: score ${score.toFixed(2)}, weight `, element("strong", {}, weightText(pair.weight)), ` (even attention ${weightText(1 / frames)}).`];
  }

  function find(event) {
    if (!place) return null;
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    let near = 18;
    for (const side of ["query", "key"]) {
      for (let frame = 0; frame < frames; frame++) {
        const [px, py] = place.at(side, frame);
        const away = Math.hypot(px - x, py - y);
        if (away < near) [near, found] = [away, { side, frame }];
      }
    }
    return found;
  }

  function lock(at) {
    const same = state.locked?.side === at.side && state.locked.frame === at.frame;
    change({ locked: same ? null : at });
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  function accept(difference) {
    take(manifest, state, difference);
    for (const name in choices) choices[name].value = name === "head" ? manifest.heads[headIndex()] : state[name];
    view.redraw();
  }

  canvas.addEventListener("pointermove", (event) => {
    hover = find(event);
    view.redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    hover = null;
    view.redraw();
  });
  canvas.addEventListener("click", (event) => {
    const at = find(event);
    if (at) lock(at);
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const from = hover ?? state.locked;
      hover = from ? { side: from.side, frame: Math.min(frames - 1, Math.max(0, from.frame + step)) } : { side: "query", frame: 0 };
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      hover = { side: event.key === "ArrowUp" ? "query" : "key", frame: (hover ?? state.locked)?.frame ?? 0 };
    } else if ((event.key === "Enter" || event.key === " ") && hover) lock(hover);
    else if (event.key === "Escape") {
      hover = null;
      change({ locked: null });
    } else return;
    event.preventDefault();
    view.redraw();
  });
  accept(given);
  return { update: accept, destroy: view.destroy };
}
