// One heat map of what the head view shows: poses at both axes, a scale, a cross-hair, the exact value.

import { countMissing, meanMap } from "./attention.js";
import { VIRIDIS, pixels } from "./colour-maps.js";
import { personColour } from "./colours.js";
import { element, sizeCanvas } from "./dom.js";
import { paintedIn } from "./frame.js";
import { short } from "./head-painting.js";
import { colourIndex, exactText, ticks } from "./heat-maps.js";
import { drawPose, fitPoses, personsIn, poseScale, readSkeleton } from "./pose.js";
import { evenText, paintScale, rangeOf } from "./scale.js";
import { frameLabels, headsOn, initialState, readMaps, take, tokenName, weightsOf } from "./state.js";
import { inks } from "./theme.js";

const SCALE = 60;

/** Show the heat map in `root`; see `headView` for the arguments. */
export function heatMap(root, manifest, tensors, given, onState) {
  const values = readMaps(manifest, tensors);
  const [queries, keys] = manifest.maps.shape.slice(-2);
  const skeleton = readSkeleton(manifest, tensors.poses);
  const state = initialState(manifest);
  const token = tokenName(manifest);
  let at = null;
  let place = null;

  const canvas = element("canvas");
  const stage = element(
    "div",
    { className: "stage", tabIndex: 0, attributes: {
      role: "application",
      "aria-label": "Heat map. Arrow keys move the cross-hair, Enter locks the query, Escape ends.",
    } },
    canvas,
  );
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  root.append(stage, reading);
  const view = paintedIn(root, stage, draw);

  function draw(width) {
    const on = headsOn(manifest, state);
    const weights = weightsOf(manifest, values, state);
    const map = meanMap(weights, on, queries * keys);
    const missing = countMissing(weights, on, queries * keys);
    const range = rangeOf(map);
    const segment = manifest.segments.indexOf(state.segment);
    const posed = skeleton && skeleton.shape[2] === queries && queries === keys && width > 260;
    const axis = posed ? 62 : manifest.token ? 66 : 34;
    const room = Math.max(80, Math.min(width - axis - SCALE - 8, 460));
    const most = Math.max(queries, keys);
    const wide = Math.max(1, Math.round((room * keys) / most));
    const tall = Math.max(1, Math.round((room * queries) / most));
    place = { x: axis, y: 6, wide, tall };
    const ink = inks(root);
    const g = sizeCanvas(canvas, axis + wide + SCALE, tall + (posed ? 74 : 42));
    g.fillStyle = ink.panel;
    g.fillRect(axis, 6, wide, tall);
    g.imageSmoothingEnabled = keys > wide;
    g.drawImage(picture(map, range), axis, 6, wide, tall);
    paintAxes(g, ink, segment, axis, posed);
    if (posed) paintPoses(g, ink, segment, axis);
    paintScale(g, ink, { x: axis + wide + 12, y: 6, length: tall, upright: true }, range, 1 / keys);
    if (state.locked) {
      g.fillStyle = ink.accent;
      if (state.locked.side === "query") {
        g.fillRect(axis - 4, 6 + (state.locked.frame * tall) / queries, 4, Math.max(tall / queries, 2));
        g.fillRect(axis + wide, 6 + (state.locked.frame * tall) / queries, 4, Math.max(tall / queries, 2));
      } else g.fillRect(axis + (state.locked.frame * wide) / keys, 6 + tall, Math.max(wide / keys, 2), 4);
    }
    if (at) paintCross(g);
    reading.replaceChildren(...words(map, on, segment, range, missing));
  }

  function picture(map, range) {
    const image = element("canvas", { width: keys, height: queries });
    const g = image.getContext("2d");
    const data = g.createImageData(keys, queries);
    const target = new Uint32Array(data.data.buffer);
    const table = pixels(VIRIDIS);
    for (let i = 0; i < map.length; i++) target[i] = table[colourIndex(map[i], range, "seq")];
    g.putImageData(data, 0, 0);
    return image;
  }

  function paintAxes(g, ink, segment, axis, posed) {
    const { x, y, wide, tall } = place;
    const name = { query: frameLabels(manifest, segment, queries), key: frameLabels(manifest, segment, keys) };
    g.font = `10px ${ink.font}`;
    g.fillStyle = ink.muted;
    g.textBaseline = "middle";
    g.textAlign = "center";
    for (const i of ticks(keys, wide / (manifest.token ? 58 : 34))) g.fillText(short(name.key(i)), x + ((i + 0.5) * wide) / keys, y + tall + (posed ? 40 : 10));
    g.fillText(`key ${token}`, x + wide / 2, y + tall + (posed ? 58 : 26));
    g.textAlign = "right";
    for (const i of ticks(queries, tall / 22)) {
      g.fillText(short(name.query(i)), posed ? 30 : x - 5, Math.max(6, y + ((i + 0.5) * tall) / queries));
    }
    g.save();
    g.translate(6, y + tall / 2);
    g.rotate(-Math.PI / 2);
    g.textAlign = "center";
    g.fillText(`query ${token}`, 0, 0);
    g.restore();
  }

  /** As many poses as have room, along both axes. */
  function paintPoses(g, ink, segment) {
    const { x, y, wide, tall } = place;
    const { poses, shape, yDown } = skeleton;
    const persons = personsIn(manifest, skeleton, segment);
    const fit = fitPoses(poses, shape, segment, persons, yDown, 1);
    const room = { width: 24, height: 30 };
    const how = { scale: poseScale(fit, room), line: 1 };
    const shades = [0, 1].map((m) => ({
      ink: `rgb(${personColour(ink.ink, m)})`, paler: `rgb(${personColour(ink.muted, m)})`,
    }));
    const one = (frame, px, py) => {
      for (const person of persons) {
        drawPose(g, skeleton, fit, { person, segment, frame }, { ...how, ...shades[person && 1], x: px, y: py });
      }
    };
    const across = Math.max(1, Math.ceil((keys * 26) / wide));
    for (let i = 0; i < keys; i += across) one(i, x + ((i + 0.5) * wide) / keys, y + tall + 20);
    const down = Math.max(1, Math.ceil((queries * 32) / tall));
    for (let i = 0; i < queries; i += down) one(i, x - 17, y + ((i + 0.5) * tall) / queries);
  }

  function paintCross(g) {
    const { x, y, wide, tall } = place;
    const px = x + ((at.key + 0.5) * wide) / keys;
    const py = y + ((at.query + 0.5) * tall) / queries;
    for (const [colour, line] of [["#000000", 2.5], ["#ffffff", 1]]) {
      g.strokeStyle = colour;
      g.lineWidth = line;
      g.beginPath();
      g.moveTo(x, py);
      g.lineTo(x + wide, py);
      g.moveTo(px, y);
      g.lineTo(px, y + tall);
      g.stroke();
    }
  }

  function words(map, on, segment, range, missing) {
    if (!on.length) return ["No head is on."];
    const what = on.length === 1 ? `head ${state.heads[0]}` : `mean of ${on.length} heads`;
    const none = missing ? ` ${missing} of ${on.length * queries * keys} weights are no numbers (NaN): they are left out, and a cell without any is blank.` : "";
    if (!at) return [`Layer ${state.layer}, ${what}. Point at a cell for its weight; a click locks its query ${token}.${evenText(1 / keys, range, "▸")}${none}`];
    const found = map[at.query * keys + at.key];
    const value = Number.isNaN(found) ? "not a number (NaN)" : exactText(found);
    return [
      `Query ${token} ${frameLabels(manifest, segment, queries)(at.query)} → key ${token} ${frameLabels(manifest, segment, keys)(at.key)}: `,
      element("strong", {}, value),
      ` (layer ${state.layer}, ${what})`,
    ];
  }

  function find(event) {
    if (!place) return null;
    const box = canvas.getBoundingClientRect();
    const key = Math.floor(((event.clientX - box.left - place.x) / place.wide) * keys);
    const query = Math.floor(((event.clientY - box.top - place.y) / place.tall) * queries);
    return key >= 0 && key < keys && query >= 0 && query < queries ? { query, key } : null;
  }

  function lock() {
    const same = state.locked?.side === "query" && state.locked.frame === at.query;
    change({ locked: same ? null : { side: "query", frame: at.query } });
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  function accept(difference) {
    take(manifest, state, difference);
    view.redraw();
  }

  canvas.addEventListener("pointermove", (event) => {
    at = find(event);
    view.redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    at = null;
    view.redraw();
  });
  canvas.addEventListener("click", (event) => {
    at = find(event);
    if (at) lock();
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const from = at ?? { query: -step[0], key: -step[1] };
      at = {
        query: Math.min(Math.max(from.query + step[0], 0), queries - 1),
        key: Math.min(Math.max(from.key + step[1], 0), keys - 1),
      };
      view.redraw();
    } else if ((event.key === "Enter" || event.key === " ") && at) lock();
    else if (event.key === "Escape") {
      at = null;
      change({ locked: null });
    } else return;
    event.preventDefault();
  });
  accept(given);
  return { update: accept, destroy: view.destroy };
}
