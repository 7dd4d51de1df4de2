// How the head view is painted. What does not change under the pointer (poses, labels, the lines of all
// frames) is printed once and copied from then on; only what belongs to the frame pointed at is drawn anew.

import { aboveEven } from "./attention.js";
import { blend, headColour, hex, inkOn, personColour, rgb } from "./colours.js";
import { element } from "./dom.js";
import { drawPose, poseScale } from "./pose.js";

// So many grades of opacity as an eye can tell apart in thin lines; each grade of a head is one path.
const GRADES = 16;
const WIDER = 0.3;

/** Prints of a scene, each made when it is first asked for. */
export function printer(scene, ratio) {
  const { layout } = scene;
  const kept = new Map();

  function print(name, area, draw) {
    if (!kept.has(name)) {
      const [x, y] = [Math.round(area.x * ratio), Math.round(area.y * ratio)];
      const width = Math.max(1, Math.round((area.x + area.width) * ratio) - x);
      const height = Math.max(1, Math.round((area.y + area.height) * ratio) - y);
      const canvas = element("canvas", { width, height });
      const g = canvas.getContext("2d");
      g.setTransform(ratio, 0, 0, ratio, -x, -y);
      draw(g);
      kept.set(name, { canvas, x, y });
    }
    return kept.get(name);
  }

  /** Copy a print, or of it what lies along the frames from `low` to `high` (CSS pixels). */
  function copy(g, { canvas, x, y }, low, high) {
    g.save();
    g.resetTransform();
    g.imageSmoothingEnabled = false;
    let [sx, sy, width, height] = [0, 0, canvas.width, canvas.height];
    if (low !== undefined) {
      const [from, to] = [Math.round(low * ratio), Math.round(high * ratio)];
      if (layout.horizontal) [sx, width] = [from - x, to - from];
      else [sy, height] = [from - y, to - from];
    }
    if (width > 0 && height > 0) g.drawImage(canvas, sx, sy, width, height, x + sx, y + sy, width, height);
    g.restore();
  }

  // What is seen first is drawn in place: prints would only delay it.
  let first = true;
  const put = (g, name, area, draw, low, high) => {
    if (first && low === undefined) draw(g);
    else copy(g, print(name, area, draw), low, high);
  };
  return {
    labels: (g, side, colour, low, high) =>
      put(g, `labels ${side} ${colour}`, layout.room("labels", side), (to) => printLabels(to, scene, side, colour), low, high),
    poses: (g, side, colour, low, high) =>
      put(g, `poses ${side} ${colour}`, layout.room("poses", side), (to) => printPoses(to, scene, side, colour), low, high),
    lines: (g, draw) => put(g, "lines", layout.between, draw),
    seen() {
      first = false;
    },
  };
}

function printLabels(g, { layout, labels, frames, ink }, side, colour) {
  g.font = `11px ${ink.font}`;
  g.textAlign = "center";
  g.textBaseline = "middle";
  g.fillStyle = colour;
  let widest = 0;
  for (let frame = 0; frame < frames[side]; frame++) {
    widest = Math.max(widest, g.measureText(short(labels[side](frame))).width);
  }
  const every = layout.labelEvery(side, widest);
  for (let frame = 0; frame < frames[side]; frame += every) {
    const at = layout.label(side, frame);
    g.fillText(short(labels[side](frame)), at.x, at.y);
  }
}

function printPoses(g, scene, side, colour) {
  const { layout, skeleton, frames } = scene;
  if (skeleton.shape[2] !== frames[side]) return;
  const every = layout.poseEvery(side);
  const shades = shadesOf(colour);
  for (let frame = 0; frame < frames[side]; frame += every) paintPose(g, scene, side, frame, shades);
}

/** Ink is thinned by opacity, so that it fits whatever lies under it. */
function shadesOf(colour) {
  return [0, 1].map((person) => {
    const ink = personColour(colour, person);
    const [full, paler, faint, faintest] = [1, 0.6, 0.42, 0.3].map((part) => `rgba(${ink}, ${part})`);
    return { full: { ink: full, paler }, faint: { ink: faint, paler: faintest } };
  });
}

/** The pose of a frame: in full who is chosen, faintly the others. */
function paintPose(g, { layout, skeleton, segment, persons, manifest, state, fit }, side, frame, shades) {
  const box = layout.poseBox(side, frame);
  const how = {
    x: box.x + box.width / 2,
    y: box.y + box.height / 2,
    scale: poseScale(fit, { width: layout.poseRoom(side), height: box.height }),
    line: Math.min(2.4, Math.max(1.1, box.height / 44)),
  };
  const chosen = (m) => manifest.fused || m === state.person - 1;
  const order = [...persons].sort((a, b) => chosen(a) - chosen(b));
  for (const person of order) {
    const shade = shades[person && 1][chosen(person) ? "full" : "faint"];
    // Wider below: who stands behind another is seen on both sides of each limb.
    const line = person === order[persons.length - 1] ? how.line : how.line * 1.8;
    drawPose(g, skeleton, fit, { person, segment, frame }, { ...how, ...shade, line });
  }
}

/**
 * Paint the view.
 *
 * @param {CanvasRenderingContext2D} g
 * @param {object} scene what is shown of which layer, heads, segment and person; see head-view.js
 * @param {object} seen what of it is pointed at: focus, other, perHead, mean, lines, pair
 * @param {object} prints of `printer`
 */
export function paint(g, scene, seen, prints) {
  const { layout, ink, skeleton, frames } = scene;
  const { focus, other, mean, lines } = seen;
  g.clearRect(0, 0, layout.width, layout.height);
  if (focus) paintLines(g, scene, seen);
  else prints.lines(g, (to) => paintLines(to, scene, { lines }));
  let strongest = 0;
  for (let i = 0; i < mean.length; i++) if (mean[i] > strongest) strongest = mean[i];
  paintBars(g, scene, seen, strongest);
  for (const side of ["query", "key"]) {
    if (focus && side === other) paintShaded(g, scene, seen, prints, side, strongest);
    else {
      prints.labels(g, side, ink.muted);
      g.globalAlpha = focus ? 0.4 : 1;
      if (skeleton) prints.poses(g, side, ink.ink);
      g.globalAlpha = 1;
    }
  }
  if (focus) paintChosen(g, scene, focus);
  if (seen.pair) paintPaired(g, scene, seen.pair);
  g.fillStyle = ink.muted;
  // The font of the buttons above, which is there already: to look another up delays the first paint.
  g.font = `650 12px ${ink.font}`;
  g.textBaseline = "middle";
  for (const { text, x, y, align } of layout.titles) {
    g.textAlign = align;
    g.fillText(text, x, y);
  }
  prints.seen();
}

/** Weak lines first, so that the strong are painted over them; lines of a head and grade are one path. */
function paintLines(g, { layout, on, manifest, even }, { lines, focus, pair }) {
  const count = lines.weight.length;
  const most = count ? lines.weight[count - 1] : 1;
  // Many lines lie on each other: the more there are, the fainter each is.
  const strength = focus ? 1 : Math.min(1, 18 / Math.sqrt(Math.max(count, 1)));
  // In the lines of one frame heads run beside each other; in all lines at once that would be a haze.
  const middle = focus ? (on.length - 1) / 2 : 0;
  const aside = (head) => (middle ? (on.indexOf(head) - middle) / middle : 0);
  const paths = new Map();
  for (let i = 0; i < count; i++) {
    const share = aboveEven(lines.weight[i], even, most);
    const grade = Math.min(GRADES - 1, Math.floor(share * GRADES));
    const beside = pair && lines[pair.side][i] !== pair.frame ? 0 : 1;
    // Of one frame every line is there to be seen, of all frames those above even attention are.
    if (!focus && grade === 0 && strength * share < 0.015) continue;
    const place = (beside * GRADES + grade) * 65536 + lines.head[i];
    if (!paths.has(place)) paths.set(place, []);
    paths.get(place).push(i);
  }
  g.lineCap = "butt";
  for (const place of [...paths.keys()].sort((a, b) => a - b)) {
    const [head, grade, beside] = [place % 65536, Math.floor(place / 65536) % GRADES, place >= GRADES * 65536];
    const share = (grade + 0.5) / GRADES;
    g.globalAlpha = (focus ? 0.12 + 0.88 * share : strength * share) * (beside ? 1 : 0.25);
    g.strokeStyle = headColour(manifest.heads[head]);
    // Browsers draw lines of one pixel several times as fast as wider ones, and most lines are weak.
    g.lineWidth = share < WIDER ? 1 : focus ? 1 + 2 * share : 0.7 + 1.1 * share;
    g.beginPath();
    for (const i of paths.get(place)) layout.line(g, lines.query[i], lines.key[i], aside(head));
    g.stroke();
  }
  g.globalAlpha = 1;
}

/** Beside each attended frame a bar, made of what each head gives to the mean. */
function paintBars(g, { layout, frames, on, manifest }, { other, perHead }, strongest) {
  if (!strongest) return;
  const done = new Float32Array(frames[other]);
  for (let h = 0; h < on.length; h++) {
    g.fillStyle = headColour(manifest.heads[on[h]]);
    g.beginPath();
    for (let frame = 0; frame < frames[other]; frame++) {
      const share = perHead[h][frame] / on.length / strongest;
      if (!(share > 0)) continue;
      const bar = layout.bar(other, frame, done[frame], done[frame] + share);
      g.rect(bar.x, bar.y, bar.width, bar.height);
      done[frame] += share;
    }
    g.fill();
  }
}

/** The side that is attended: each frame shaded by its weight, in the ink that is read best on it. */
function paintShaded(g, { layout, ink, frames, skeleton, even }, { mean }, prints, side, strongest) {
  const paper = rgb(ink.paper);
  const accent = rgb(ink.accent);
  const runs = [];
  g.fillStyle = ink.accent;
  for (let frame = 0; frame < frames[side]; frame++) {
    const share = aboveEven(mean[frame], even, strongest);
    let colours = [ink.muted, ink.ink];
    if (share > 0.004) {
      const box = layout.box(side, frame);
      g.globalAlpha = 0.8 * share;
      g.fillRect(box.x, box.y, box.width, box.height);
      colours = Array(2).fill(inkOn(blend(accent, paper, 0.8 * share)));
    }
    const [low, high] = layout.along(side, frame);
    const last = runs[runs.length - 1];
    if (last?.colours[0] === colours[0]) last.high = high;
    else runs.push({ colours, low, high });
  }
  g.globalAlpha = 1;
  if (!runs.length) return;
  // What reaches over the first and last frame's edge belongs to them.
  runs[0].low = 0;
  runs[runs.length - 1].high = layout.horizontal ? layout.width : layout.height;
  for (const { colours, low, high } of runs) {
    prints.labels(g, side, colours[0], low, high);
    if (skeleton) prints.poses(g, side, colours[1], low, high);
  }
}

function paintChosen(g, scene, { side, frame }) {
  const { layout, ink, skeleton, frames } = scene;
  const box = layout.box(side, frame);
  g.fillStyle = ink.panel;
  g.fillRect(box.x, box.y, box.width, box.height);
  g.fillStyle = ink.accent;
  const edge = layout.edge(side, frame);
  g.fillRect(edge.x, edge.y, edge.width, edge.height);
  if (skeleton?.shape[2] === frames[side]) paintPose(g, scene, side, frame, shadesOf(ink.accent));
  name(g, scene, side, frame);
}

function paintPaired(g, scene, { side, frame }) {
  const { layout, ink } = scene;
  const box = layout.box(side, frame);
  g.strokeStyle = ink.ink;
  g.lineWidth = 1.5;
  g.strokeRect(box.x + 0.75, box.y + 0.75, Math.max(box.width - 1.5, 1), Math.max(box.height - 1.5, 1));
  name(g, scene, side, frame);
}

/** A frame's name in bold on a ground of its own, over whatever name is printed there. */
function name(g, { layout, ink, labels }, side, frame) {
  const text = short(labels[side](frame));
  const at = layout.label(side, frame);
  g.font = `700 11px ${ink.font}`;
  g.textAlign = "center";
  g.textBaseline = "middle";
  const width = g.measureText(text).width + 6;
  const x = Math.min(Math.max(at.x, width / 2), layout.width - width / 2);
  g.fillStyle = ink.panel;
  g.fillRect(x - width / 2, at.y - 7, width, 14);
  g.fillStyle = ink.ink;
  g.fillText(text, x, at.y);
}

/** What of a name is drawn beside the lines; the whole is read under them. */
export function short(text) {
  if (text.length <= 8) return text;
  const letters = [...text];
  // Patches ("row 3 column 5") and joints ("left arm 2") are told apart by their ends.
  return letters.length > 8 ? `${letters.slice(0, 4).join("")}…${letters.slice(-3).join("")}` : text;
}

const CELL = { width: 58, height: 74, label: 16, gap: 4 };

/**
 * The locked frame and those that have most to do with it, in the order of time, as poses shaded by
 * attention.
 *
 * @param {number[]} best places of the frames with the largest weights
 * @returns {{width: number, height: number}} what `draw` paints needs, given the context
 */
export function filmstrip(scene, { focus, other, mean }, best, weightText) {
  const { ink, even, labels, skeleton, segment, persons, manifest, state, fit } = scene;
  const inTime = [...best].sort((a, b) => a - b);
  const strongest = Math.max(...inTime.map((frame) => mean[frame]));
  const tall = CELL.height + 2 * CELL.label;
  return {
    width: (inTime.length + 1) * (CELL.width + CELL.gap) + 12,
    height: tall,
    draw(g) {
      const paper = rgb(ink.paper);
      const accent = rgb(ink.accent);
      const cell = (frame, side, x, below, share, colour) => {
        g.fillStyle = share === null ? ink.panel : hex(blend(accent, paper, 0.8 * share));
        g.fillRect(x, 0, CELL.width, CELL.height + CELL.label);
        if (skeleton.shape[2] === scene.frames[side]) {
          const how = {
            x: x + CELL.width / 2, y: CELL.label + CELL.height / 2, line: 1.6,
            scale: poseScale(fit, { width: CELL.width, height: CELL.height - 6 }),
          };
          const own = (m) => manifest.fused || m === state.person - 1;
          for (const person of [...persons].sort((a, b) => own(a) - own(b))) {
            const shade = (part) => `rgba(${personColour(colour, person)}, ${own(person) ? part : 0.45 * part})`;
            const under = persons.length > 1 && (manifest.fused ? !person : !own(person));
            const line = under ? how.line * 1.8 : how.line;
            drawPose(g, skeleton, fit, { person, segment, frame }, { ...how, line, ink: shade(1), paler: shade(0.6) });
          }
        }
        g.font = `${share === null ? "700 " : ""}11px ${ink.font}`;
        g.fillStyle = share === null ? ink.ink : colour;
        g.fillText(short(labels[side](frame)), x + CELL.width / 2, 9);
        g.fillStyle = ink.muted;
        g.fillText(below, x + CELL.width / 2, tall - 7);
      };
      g.textAlign = "center";
      g.textBaseline = "middle";
      cell(focus.frame, focus.side, 0, focus.side, null, ink.accent);
      inTime.forEach((frame, i) => {
        const share = aboveEven(mean[frame], even, strongest);
        const colour = share > 0.004 ? inkOn(blend(accent, paper, 0.8 * share)) : ink.ink;
        cell(frame, other, 12 + (i + 1) * (CELL.width + CELL.gap), weightText(mean[frame]), share, colour);
      });
    },
  };
}
