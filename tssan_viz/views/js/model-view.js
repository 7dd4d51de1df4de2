// The model view: every head of every layer as a thumbnail; a click opens one.

import { countMissing, weightText } from "./attention.js";
import { VIRIDIS, pixels } from "./colour-maps.js";
import { headColour } from "./colours.js";
import { element, sizeCanvas } from "./dom.js";
import { paintedIn } from "./frame.js";
import { colourIndex } from "./heat-maps.js";
import { evenText, paintScale, rangeOf } from "./scale.js";
import { initialState, readMaps, take, weightsOf } from "./state.js";
import { inks } from "./theme.js";

const GAP = 6;
const LEFT = 30;
const TOP = 20;
const SCALE = 36;

/** How large the thumbnails are: the same for all, so that heads of all layers stand in columns. */
export function cellSize(width, heads, layers) {
  return Math.max(14, Math.min(Math.max(84, 480 / layers), Math.floor((width - LEFT) / heads) - GAP));
}

/** Show the model view in `root`; see `headView` for the arguments. */
export function modelView(root, manifest, tensors, given, onState) {
  const values = readMaps(manifest, tensors);
  const [heads, queries, keys] = manifest.maps.shape.slice(-3);
  const plane = queries * keys;
  const state = initialState(manifest);
  let at = null;
  let cell = 0;
  let images = null;
  let range = [0, 0];
  let drawn = "";

  const canvas = element("canvas");
  const stage = element(
    "div",
    { className: "stage", tabIndex: 0, attributes: {
      role: "application",
      "aria-label": "All layers and heads. Arrow keys move between heads, Enter opens one.",
    } },
    canvas,
  );
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  root.append(stage, reading);
  const view = paintedIn(root, stage, draw);

  function thumbnails() {
    const which = `${state.segment} ${state.person} ${state.step}`;
    if (images && drawn === which) return;
    drawn = which;
    const table = pixels(VIRIDIS);
    const all = manifest.layers.map((layer) => rangeOf(weightsOf(manifest, values, state, layer)));
    const [least, most] = rangeOf(all.flat());
    // Some heads hold weights twenty times those of others: from 0 on, all but the peaks would be dark.
    range = [Math.max(least, Math.min(1 / keys, most) / 10), most];
    const logs = range.map(Math.log);
    images = manifest.layers.map((layer) => {
      const weights = weightsOf(manifest, values, state, layer);
      return manifest.heads.map((_, h) => {
        const image = element("canvas", { width: keys, height: queries });
        const g = image.getContext("2d");
        const data = g.createImageData(keys, queries);
        const target = new Uint32Array(data.data.buffer);
        for (let i = 0; i < plane; i++) {
          const weight = weights[h * plane + i];
          target[i] = table[colourIndex(Math.log(Math.max(weight, range[0])), logs, "seq")];
        }
        g.putImageData(data, 0, 0);
        return {
          image, missing: countMissing(weights, [h], plane),
          range: rangeOf(weights.subarray(h * plane, (h + 1) * plane)),
        };
      });
    });
  }

  function draw(width) {
    thumbnails();
    cell = cellSize(width, heads, manifest.layers.length);
    const g = sizeCanvas(
      canvas, LEFT + heads * (cell + GAP), TOP + manifest.layers.length * (cell + GAP) + SCALE,
    );
    const ink = inks(root);
    g.font = `600 11px ${ink.font}`;
    g.textBaseline = "middle";
    g.textAlign = "center";
    for (let h = 0; h < heads; h++) {
      const x = LEFT + h * (cell + GAP);
      const on = state.heads.includes(manifest.heads[h]);
      g.fillStyle = on ? ink.ink : ink.muted;
      g.fillText(manifest.heads[h], x + cell / 2, 8);
      g.fillStyle = headColour(manifest.heads[h]);
      g.globalAlpha = on ? 1 : 0.3;
      g.fillRect(x, TOP - 5, cell, 3);
      g.globalAlpha = 1;
    }
    g.imageSmoothingQuality = "high";
    for (let l = 0; l < manifest.layers.length; l++) {
      const y = TOP + l * (cell + GAP);
      const here = manifest.layers[l] === state.layer;
      g.fillStyle = here ? ink.ink : ink.muted;
      g.fillText(manifest.layers[l], 12, y + cell / 2);
      for (let h = 0; h < heads; h++) {
        const x = LEFT + h * (cell + GAP);
        g.fillStyle = ink.panel;
        g.fillRect(x, y, cell, cell);
        g.imageSmoothingEnabled = keys > cell;
        g.drawImage(images[l][h].image, x, y, cell, cell);
        if (here && state.heads.includes(manifest.heads[h])) frame(g, x, y, ink.accent, 2);
        if (at?.l === l && at?.h === h) frame(g, x, y, ink.ink, 2);
      }
    }
    const length = Math.min(220, heads * (cell + GAP) - GAP);
    paintScale(
      g, ink, { x: LEFT, y: TOP + manifest.layers.length * (cell + GAP) + 8, length, upright: false, log: true }, range, 1 / keys,
    );
    reading.textContent = at ? told() : `Layers down, heads across; queries down, keys across in each; one logarithmic scale for all.${evenText(1 / keys, range, "▾")}`;
  }

  /** What is to be said of the head pointed at. */
  function told() {
    const { missing, range: [least, most] } = images[at.l][at.h];
    const which = `Layer ${manifest.layers[at.l]}, head ${manifest.heads[at.h]}: `;
    if (missing === plane) return `${which}not one weight is a number (NaN).`;
    const none = missing ? `; ${missing} of ${plane} are no numbers (NaN) and blank` : "";
    return `${which}weights from ${weightText(least)} to ${weightText(most)}${none}.`;
  }

  function frame(g, x, y, colour, line) {
    g.strokeStyle = colour;
    g.lineWidth = line;
    g.strokeRect(x - line / 2, y - line / 2, cell + line, cell + line);
  }

  function find(event) {
    const box = canvas.getBoundingClientRect();
    const h = Math.floor((event.clientX - box.left - LEFT) / (cell + GAP));
    const l = Math.floor((event.clientY - box.top - TOP) / (cell + GAP));
    return h >= 0 && h < heads && l >= 0 && l < manifest.layers.length ? { l, h } : null;
  }

  function open() {
    change({ layer: manifest.layers[at.l], heads: [manifest.heads[at.h]] });
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
    canvas.style.cursor = at ? "pointer" : "";
    view.redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    at = null;
    view.redraw();
  });
  canvas.addEventListener("click", (event) => {
    at = find(event);
    if (at) open();
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const from = at ?? { l: manifest.layers.indexOf(state.layer) - step[0], h: -step[1] };
      at = {
        l: Math.min(Math.max(from.l + step[0], 0), manifest.layers.length - 1),
        h: Math.min(Math.max(from.h + step[1], 0), heads - 1),
      };
      view.redraw();
    } else if ((event.key === "Enter" || event.key === " ") && at) open();
    else if (event.key === "Escape") change({ heads: [...manifest.heads] });
    else return;
    event.preventDefault();
  });
  accept(given);
  return { update: accept, destroy: view.destroy };
}
