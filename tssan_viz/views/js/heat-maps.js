// Maps side by side, each kind on one shared scale, with the exact value under the pointer.

import { weightText } from "./attention.js";
import { RDBU, VIRIDIS, pixels } from "./colour-maps.js";
import { decode } from "./decode.js";
import { element, oncePerFrame, sizeCanvas, watchWidth } from "./dom.js";
import { inks, themeNow, watchTheme } from "./theme.js";

const TABLES = { seq: VIRIDIS, div: RDBU };
const LEFT = 34;
const BOTTOM = 30;

/**
 * The range of each kind over all its maps: seq from the least to the most, as attention over many frames
 * lies close to even and from 0 on would all be one colour; div even about 0.
 * @returns {{seq?: [number, number], div?: [number, number]}}
 */
export function ranges(values, [maps, queries, keys], kinds) {
  const size = queries * keys;
  const result = {};
  for (let n = 0; n < maps; n++) {
    const kind = kinds[n];
    let [low, high] = result[kind] ?? [kind === "div" ? 0 : Infinity, kind === "div" ? 0 : -Infinity];
    for (let i = n * size; i < (n + 1) * size; i++) {
      const value = kind === "div" ? Math.abs(values[i]) : values[i];
      if (value > high) high = value;
      if (kind !== "div" && value < low) low = value;
    }
    result[kind] = [kind === "div" ? -high : low, high];
  }
  return result;
}

/** The place in a table of 256 colours; where all are alike: first of "seq", middle of "div". */
export function colourIndex(value, [low, high], kind) {
  if (!(high > low)) return kind === "div" ? 128 : 0;
  return Math.min(255, Math.max(0, Math.floor(((value - low) / (high - low)) * 256)));
}

/** Numbers for an axis: about `count` frames, evenly spaced, the first among them. */
export function ticks(frames, count) {
  const every = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500].find((step) => frames / step <= count) ?? frames;
  const result = [];
  for (let frame = 0; frame < frames; frame += every) result.push(frame);
  return result;
}

/**
 * Show heat maps in `root` (see `headView` for the arguments; of the state only `locked` is heeded: the
 * frame that a head view beside them holds is marked).
 *
 * Manifest: titles (one per map), kinds ("seq" | "div"), maps {dtype, shape [n, q, s]}, labels (of the
 * frames, or null), units {seq, div} (what the colour bars are called), even (where attention that is
 * spread evenly lies, marked on the scale of "seq"; or nothing).
 */
export function heatMaps(root, manifest, tensors, given) {
  const values = decode(manifest.maps, tensors.maps);
  const [maps, queries, keys] = manifest.maps.shape;
  const { titles, kinds } = manifest;
  const scale = manifest.ranges ?? ranges(values, manifest.maps.shape, kinds);
  const outlined = tensors.outlined ?? null;
  const label = (frame) => manifest.labels?.[frame] ?? String(frame);
  let at = null;
  let locked = null;
  let width = 0;

  const grid = element("div", {
    className: "maps",
    tabIndex: 0,
    attributes: { role: "group", "aria-label": "Heat maps. Arrow keys move over them, Escape ends." },
  });
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") at = null;
    else if (step && !at) at = { map: 0, query: 0, key: 0 };
    else if (step) {
      const query = Math.min(Math.max(at.query + step[0], 0), queries - 1);
      const key = Math.min(Math.max(at.key + step[1], 0), keys - 1);
      at = { map: at.map, query, key };
    } else return;
    event.preventDefault();
    redraw();
  });
  const canvases = [];
  for (let n = 0; n < maps; n++) {
    const canvas = element("canvas", {
      attributes: { role: "img", "aria-label": `${titles[n]}: heat map, query frames down, key frames across` },
    });
    canvas.addEventListener("pointermove", (event) => point(event, n));
    canvas.addEventListener("pointerdown", (event) => point(event, n));
    canvas.addEventListener("pointerleave", () => {
      at = null;
      redraw();
    });
    canvases.push(canvas);
    grid.append(element("figure", {}, element("figcaption", {}, titles[n]), canvas));
  }
  const bars = element("div", { className: "scales" });
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  root.append(grid, bars, reading);

  const images = [];
  for (let n = 0; n < maps; n++) images.push(image(values, n, queries, keys, kinds[n], scale[kinds[n]]));
  const painters = [];
  for (const kind of ["seq", "div"]) {
    if (!scale[kind]) continue;
    const [bar, paint] = colourBar(kind, scale[kind], manifest.units, kind === "seq" ? manifest.even : undefined);
    bars.append(bar);
    painters.push(paint);
  }

  const redraw = oncePerFrame(draw);

  function cell() {
    // Many maps on a phone stand in two columns: side by side they can be compared.
    const least = maps > 4 && width < 480 ? 100 : 180;
    const fit = Math.min(maps, Math.max(1, Math.floor((width + 18) / (least + LEFT + 18))));
    const beside = Math.ceil(maps / Math.ceil(maps / fit));
    const room = (width - (beside - 1) * 18) / beside - LEFT - 4;
    return Math.max(96, Math.min(room, maps <= 3 ? 340 : 260));
  }

  function draw() {
    if (!width) return;
    const size = Math.floor(cell());
    const ink = inks(root);
    for (const paint of painters) paint(ink);
    const tall = Math.round((size * Math.min(queries, 4 * keys)) / Math.max(keys, queries / 4));
    for (let n = 0; n < maps; n++) {
      const g = sizeCanvas(canvases[n], LEFT + size + 4, tall + BOTTOM);
      g.imageSmoothingEnabled = false;
      g.drawImage(images[n], LEFT, 0, size, tall);
      g.font = `10px ${ink.font}`;
      g.fillStyle = ink.muted;
      g.textAlign = "center";
      g.textBaseline = "middle";
      for (const frame of ticks(keys, size / 30)) {
        g.fillText(label(frame), LEFT + ((frame + 0.5) * size) / keys, tall + 9);
      }
      g.fillText("key frame", LEFT + size / 2, tall + 22);
      g.textAlign = "right";
      for (const frame of ticks(queries, tall / 22)) {
        g.fillText(label(frame), LEFT - 4, Math.max(5, ((frame + 0.5) * tall) / queries));
      }
      g.save();
      g.translate(7, tall / 2);
      g.rotate(-Math.PI / 2);
      g.textAlign = "center";
      g.fillText("query frame", 0, 0);
      g.restore();
      if (outlined && kinds[n] === "div") outline(g, outlined, queries, keys, { x: LEFT, wide: size, tall });
      if (locked) {
        g.fillStyle = ink.accent;
        if (locked.side === "query") {
          g.fillRect(LEFT - 4, (locked.frame * tall) / queries, 4, tall / queries);
          g.fillRect(LEFT + size, (locked.frame * tall) / queries, 4, tall / queries);
        } else g.fillRect(LEFT + (locked.frame * size) / keys, tall, size / keys, 4);
      }
      if (at) {
        g.strokeStyle = kinds[n] === "div" ? "#000000" : "#ffffff";
        g.lineWidth = 1.5;
        const x = LEFT + (at.key * size) / keys;
        const y = (at.query * tall) / queries;
        g.strokeRect(x, y, Math.max(size / keys, 3), Math.max(tall / queries, 3));
      }
    }
    reading.replaceChildren(...words());
  }

  function point(event, n) {
    const box = canvases[n].getBoundingClientRect();
    const key = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT - 4)) * keys);
    const query = Math.floor(((event.clientY - box.top) / (box.height - BOTTOM)) * queries);
    const inside = key >= 0 && key < keys && query >= 0 && query < queries;
    if (inside && at?.key === key && at?.query === query && at?.map === n) return;
    at = inside ? { map: n, key, query } : null;
    redraw();
  }

  function words() {
    if (!at) return [];
    const value = (n) => exactText(values[(n * queries + at.query) * keys + at.key]);
    const rest = [];
    for (let n = 0; n < maps; n++) if (n !== at.map) rest.push(`${titles[n]} ${value(n)}`);
    return [
      `query frame ${label(at.query)} → key frame ${label(at.key)}: `,
      element("strong", {}, `${titles[at.map]} ${value(at.map)}`),
      rest.length ? ` · ${rest.join(" · ")}` : "",
    ];
  }

  function update(state) {
    const side = { query: queries, key: keys }[state.locked?.side];
    locked = side && state.locked.frame < side ? state.locked : null;
    redraw();
  }

  const applyTheme = () => {
    root.dataset.theme = themeNow();
    redraw();
  };
  const endings = [
    watchTheme(applyTheme),
    watchWidth(grid, (now) => {
      width = now;
      redraw();
    }),
    redraw.cancel,
  ];
  applyTheme();
  update(given);

  return {
    update,
    destroy() {
      for (const end of endings) end();
      root.replaceChildren();
    },
  };
}

/** A value with all the digits that float16 can tell apart. */
export function exactText(value) {
  return value === 0 ? "0" : String(Number(value.toPrecision(5)));
}

/** One map as a canvas of one pixel per weight. */
function image(values, n, queries, keys, kind, range) {
  const canvas = element("canvas", { width: keys, height: queries });
  const g = canvas.getContext("2d");
  const data = g.createImageData(keys, queries);
  const target = new Uint32Array(data.data.buffer);
  const table = pixels(TABLES[kind]);
  for (let i = 0; i < target.length; i++) {
    target[i] = table[colourIndex(values[n * target.length + i], range, kind)];
  }
  g.putImageData(data, 0, 0);
  return canvas;
}

/** Lines where a cell that is marked meets one that is not, so that a group of cells has one contour. */
function outline(g, marked, queries, keys, { x, wide, tall }) {
  const [w, h] = [wide / keys, tall / queries];
  const on = (q, s) => q >= 0 && s >= 0 && q < queries && s < keys && marked[q * keys + s];
  g.strokeStyle = "#000000";
  g.lineWidth = 1.25;
  g.beginPath();
  for (let q = 0; q < queries; q++) {
    for (let s = 0; s < keys; s++) {
      if (!on(q, s)) continue;
      const [left, top] = [x + s * w, q * h];
      const edges = [
        [!on(q - 1, s), left, top, left + w, top], [!on(q + 1, s), left, top + h, left + w, top + h],
        [!on(q, s - 1), left, top, left, top + h], [!on(q, s + 1), left + w, top, left + w, top + h],
      ];
      for (const [open, x0, y0, x1, y1] of edges) {
        if (!open) continue;
        g.moveTo(x0, y0);
        g.lineTo(x1, y1);
      }
    }
  }
  g.stroke();
}

/** A bar with its ends in words, and what paints it; an arrow is at even attention where that is shown. */
function colourBar(kind, [low, high], units, even) {
  const canvas = element("canvas", { attributes: { "aria-hidden": "true" } });
  const marked = even >= low && even <= high && high > low;
  const paint = (ink) => {
    const g = sizeCanvas(canvas, 136, 20);
    const table = TABLES[kind];
    for (let i = 0; i < 256; i++) {
      g.fillStyle = `#${table.slice(6 * i, 6 * i + 6)}`;
      g.fillRect(4 + i / 2, 6, 1, 12);
    }
    if (!marked) return;
    const x = 4 + (128 * (even - low)) / (high - low);
    g.fillStyle = ink.ink;
    g.beginPath();
    g.moveTo(x, 6);
    g.lineTo(x - 4, 0);
    g.lineTo(x + 4, 0);
    g.fill();
  };
  const name = units?.[kind] ?? (kind === "div" ? "difference" : "attention weight");
  const bar = element("div", { className: "scale" }, `${name}: ${weightText(low)}`, canvas, weightText(high));
  if (marked) bar.append(element("span", {}, `▾ even attention, ${weightText(even)}`));
  return [bar, paint];
}
