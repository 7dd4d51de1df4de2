// The model view: every head of every layer as a thumbnail; a click opens one.

import { strongestOf, weightText } from "./attention.js";
import { VIRIDIS, pixels } from "./colour-maps.js";
import { headColour } from "./colours.js";
import { decode } from "./decode.js";
import { element, sizeCanvas } from "./dom.js";
import { paintedIn } from "./frame.js";
import { colourIndex } from "./heat-maps.js";
import { initialState, take, weightsOf } from "./state.js";
import { inks } from "./theme.js";

const GAP = 6;
const LEFT = 30;
const TOP = 20;

/** How large the thumbnails are: the same for all, so that heads of all layers stand in columns. */
export function cellSize(width, heads) {
  return Math.max(14, Math.min(84, Math.floor((width - LEFT) / heads) - GAP));
}

/** Show the model view in `root`; see `headView` for the arguments. */
export function modelView(root, manifest, tensors, given, onState) {
  const values = decode(manifest.maps, tensors.maps);
  const [heads, queries, keys] = manifest.maps.shape.slice(-3);
  const plane = queries * keys;
  const state = initialState(manifest);
  let at = null;
  let cell = 0;
  let images = null;
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
    const which = `${state.segment} ${state.person}`;
    if (images && drawn === which) return;
    drawn = which;
    const table = pixels(VIRIDIS);
    images = manifest.layers.map((layer) => {
      const weights = weightsOf(manifest, values, state, layer);
      return manifest.heads.map((_, h) => {
        const image = element("canvas", { width: keys, height: queries });
        const g = image.getContext("2d");
        const data = g.createImageData(keys, queries);
        const target = new Uint32Array(data.data.buffer);
        const range = [0, strongestOf(weights, [h], plane)];
        for (let i = 0; i < plane; i++) {
          target[i] = table[colourIndex(weights[h * plane + i], range, "seq")];
        }
        g.putImageData(data, 0, 0);
        return { image, most: range[1] };
      });
    });
  }

  function draw(width) {
    thumbnails();
    cell = cellSize(width, heads);
    const g = sizeCanvas(
      canvas, LEFT + heads * (cell + GAP), TOP + manifest.layers.length * (cell + GAP),
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
        g.imageSmoothingEnabled = keys > cell;
        g.drawImage(images[l][h].image, x, y, cell, cell);
        if (here && state.heads.includes(manifest.heads[h])) frame(g, x, y, ink.accent, 2);
        if (at?.l === l && at?.h === h) frame(g, x, y, ink.ink, 2);
      }
    }
    reading.textContent = at
      ? `Layer ${manifest.layers[at.l]}, head ${manifest.heads[at.h]}: strongest weight ${weightText(images[at.l][at.h].most)}.`
      : "Layers down, heads across; queries down, keys across in each; every head from 0 to its own strongest weight.";
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
