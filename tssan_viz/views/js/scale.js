// One colour scale for all that is shown, from the least to the most, with even attention marked.

import { weightText } from "./attention.js";
import { VIRIDIS } from "./colour-maps.js";

/** The least and the most of the values; what is no number is left out. */
export function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return high >= low ? [low, high] : [0, 0];
}

/**
 * Paint the scale with its least, its middle and its most, and an arrow at even attention.
 *
 * @param {{x: number, y: number, length: number, upright: boolean, log: boolean}} place of the bar, 10 px
 *   thick; `log`: equal lengths are equal factors
 */
export function paintScale(g, ink, { x, y, length, upright, log = false }, [low, high], even) {
  for (let i = 0; i < 128; i++) {
    g.fillStyle = `#${VIRIDIS.slice(12 * i, 12 * i + 6)}`;
    const at = (i * length) / 128;
    const thick = length / 128 + 1;
    if (upright) g.fillRect(x, y + length - at - thick + 1, 10, thick);
    else g.fillRect(x + at, y, thick, 10);
  }
  g.font = `10px ${ink.font}`;
  g.textBaseline = "middle";
  g.fillStyle = ink.muted;
  const shares = high > low ? [0, 0.5, 1] : [0];
  for (const share of shares) {
    const text = weightText(log ? low * (high / low) ** share : low + (high - low) * share);
    if (upright) {
      g.textAlign = "left";
      g.fillText(text, x + 14, y + Math.min(Math.max((1 - share) * length, 6), length - 6));
    } else {
      g.textAlign = { 0: "left", 0.5: "center", 1: "right" }[share];
      g.fillText(text, x + share * length, y + 18);
    }
  }
  if (!(even >= low && even <= high && high > low)) return;
  const at = length * (log ? Math.log(even / low) / Math.log(high / low) : (even - low) / (high - low));
  g.fillStyle = ink.ink;
  g.beginPath();
  if (upright) {
    g.moveTo(x - 1, y + length - at);
    g.lineTo(x - 6, y + length - at - 4);
    g.lineTo(x - 6, y + length - at + 4);
  } else {
    g.moveTo(x + at, y - 1);
    g.lineTo(x + at - 4, y - 6);
    g.lineTo(x + at + 4, y - 6);
  }
  g.fill();
}

/** What the arrow says, where there is one. */
export function evenText(even, [low, high], mark) {
  return even >= low && even <= high && high > low ? ` ${mark} even attention, ${weightText(even)}.` : "";
}
