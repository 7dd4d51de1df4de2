// Where everything is: along one axis the frames, across it bars, labels, poses, lines, poses, labels, bars.

const BARS = 24;
const LABEL = 18;
const EDGE = 3;
// How far a head may reach out of the room of its pose.
const REACH = 8;
// Fewer pixels than these along the frames, and a pose cannot be made out.
const NARROWEST = 22;
const LOWEST = 26;

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * Lay the head view out for a width in CSS pixels.
 *
 * "auto" is horizontal as long as each frame has 15 px; below, frames become rows, which a narrow page
 * can scroll.
 *
 * @param {number} width
 * @param {{query: number, key: number}} frames how many on each side
 * @param {"auto"|"horizontal"|"vertical"} orientation
 * @param {number|null} poseRatio height by width of the room that a pose needs; null without poses
 */
export function layOut(width, frames, orientation, poseRatio) {
  const most = Math.max(frames.query, frames.key);
  const horizontal =
    orientation === "horizontal" || (orientation === "auto" && (width - 60) / most >= Math.min(15, 900 / most));
  return horizontal ? sideways(width, frames, most, poseRatio) : upright(width, frames, most, poseRatio);
}

function poseEvery(step, least) {
  return Math.max(1, Math.ceil(least / step));
}

function sideways(width, frames, most, poseRatio) {
  const start = 48;
  // A thousand frames scroll; four pixels are what a pointer can still choose.
  const span = Math.max(width - start - 6, most * 4);
  const total = Math.min(span, most * 96);
  const step = { query: total / frames.query, key: total / frames.key };
  const room = (total / most) * poseEvery(total / most, NARROWEST);
  const pose = poseRatio ? Math.round(clamp(room * poseRatio, 48, 124)) : 0;
  const band = BARS + LABEL + pose + EDGE;
  const gap = Math.round(clamp(width * 0.2, 160, 270));
  const across = 2 * band + gap;
  return build({
    horizontal: true, width: Math.ceil(start + total + 6), height: Math.ceil(across),
    start, step, frames, band, gap, pose, label: LABEL,
    titles: [
      { text: "query", x: start - 8, y: BARS + LABEL + pose / 2, align: "right" },
      { text: "key", x: start - 8, y: across - BARS - LABEL - pose / 2, align: "right" },
    ],
  });
}

function upright(width, frames, most, poseRatio) {
  const start = 22;
  const row = clamp(1700 / most, 11, 44);
  const total = row * most;
  const step = { query: total / frames.query, key: total / frames.key };
  const pose = poseRatio ? Math.round(clamp(width * 0.13, 44, 72)) : 0;
  const label = poseRatio ? 34 : 56;
  const band = BARS + label + pose + EDGE;
  const across = Math.max(width, 2 * band + 60);
  return build({
    horizontal: false, width: Math.floor(across), height: Math.ceil(start + total + 4),
    start, step, frames, band, gap: across - 2 * band, pose, label,
    titles: [
      { text: "query", x: BARS + label / 2, y: start / 2, align: "center" },
      { text: "key", x: across - BARS - label / 2, y: start / 2, align: "center" },
    ],
  });
}

function build({ horizontal, width, height, start, step, frames, band, gap, pose, label, titles }) {
  // Across the frames the key side mirrors the query side: bars outside, poses next to the lines.
  const across = (side, from, size) => (side === "query" ? from : 2 * band + gap - from - size);
  const rectangle = (side, along, length, from, size) =>
    horizontal
      ? { x: along, y: across(side, from, size), width: length, height: size }
      : { x: across(side, from, size), y: along, width: size, height: length };
  const begin = (side, frame) => start + frame * step[side];
  const middle = (side, frame) => start + (frame + 0.5) * step[side];
  const spread = (side) => Math.min(step[side] * 0.3, 12);
  return {
    horizontal, width, height, titles,
    /** The band of all labels or of all poses of a side, the full length of the page. */
    room: (part, side) => {
      const [from, size] = part === "labels" ? [BARS, label] : [BARS + label - REACH, pose + EDGE + REACH];
      return rectangle(side, 0, horizontal ? width : height, from, size);
    },
    /** Between the sides, where the lines are. */
    between: rectangle("query", 0, horizontal ? width : height, band, gap),
    /** From where to where a frame reaches along its side. */
    along: (side, frame) => [begin(side, frame), begin(side, frame + 1)],
    box: (side, frame) =>
      rectangle(side, begin(side, frame), Math.max(step[side] - 1, 1), BARS + 1, band - BARS - 1),
    edge: (side, frame) =>
      rectangle(side, begin(side, frame), Math.max(step[side] - 1, 1), band - EDGE, EDGE),
    poseBox: (side, frame) => rectangle(side, begin(side, frame), step[side], BARS + label, pose),
    /** How wide a pose may be before it runs into those drawn beside it. */
    poseRoom(side) {
      return horizontal ? step[side] * this.poseEvery(side) : pose * 0.8;
    },
    /** Every how many frames there is room for a pose. */
    poseEvery: (side) => poseEvery(step[side], horizontal ? NARROWEST : LOWEST),
    label(side, frame) {
      const at = rectangle(side, middle(side, frame), 0, BARS + label / 2, 0);
      return { x: at.x, y: at.y };
    },
    labelEvery: (side, textWidth) =>
      Math.max(1, Math.ceil((horizontal ? textWidth + 5 : 13) / step[side])),
    /** A piece of a frame's bar; 0 lies at the label, 1 at the outer rim. */
    bar(side, frame, low, high) {
      const thick = Math.max(1, Math.min(step[side] - 2, 18));
      const room = BARS - 3;
      return rectangle(side, middle(side, frame) - thick / 2, thick, BARS - high * room, (high - low) * room);
    },
    /** `aside` from -1 to 1: heads run beside each other, so that none hides the others. */
    line(g, query, key, aside) {
      const u0 = middle("query", query) + aside * spread("query");
      const u1 = middle("key", key) + aside * spread("key");
      const v0 = band + 1;
      const v1 = band + gap - 1;
      const bend = gap * 0.45;
      if (horizontal) {
        g.moveTo(u0, v0);
        g.bezierCurveTo(u0, v0 + bend, u1, v1 - bend, u1, v1);
      } else {
        g.moveTo(v0, u0);
        g.bezierCurveTo(v0 + bend, u0, v1 - bend, u1, v1, u1);
      }
    },
    frameAt(x, y) {
      const along = horizontal ? x : y;
      const over = horizontal ? y : x;
      const side = over < band + 6 ? "query" : over > band + gap - 6 ? "key" : null;
      if (!side) return null;
      const frame = Math.floor((along - start) / step[side]);
      return frame >= 0 && frame < frames[side] ? { side, frame } : null;
    },
  };
}
