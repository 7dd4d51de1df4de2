// Colours of heads and of maps, and which ink can be read on them.

/**
 * One colour per head, found by search: as far apart as they can be for protan, deutan, tritan and
 * usual vision together, and standing out from white and from near-black paper alike.
 */
export const HEAD_COLOURS = [
  "#005ac3", "#a5c300", "#785a00", "#00c3ff", "#8778f0", "#c33c78", "#f096a5", "#b4873c",
  "#e169b4", "#965aa5", "#00a5d2", "#c3a569", "#c36969", "#a54b4b", "#a5692d", "#0f78c3",
];

/** The colour of a head, counted from 1. */
export function headColour(head) {
  return HEAD_COLOURS[(head - 1) % HEAD_COLOURS.length];
}

/** "#rrggbb", "#rgb" or "rgb(r, g, b)" -> [r, g, b] in 0..255. */
export function rgb(colour) {
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(colour);
  if (hex) {
    const digits = hex[1].length === 3 ? hex[1].replace(/./g, "$&$&") : hex[1];
    return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
  }
  const parts = /^rgba?\(([^)]+)\)$/i.exec(colour);
  if (parts) return parts[1].split(/[\s,/]+/).slice(0, 3).map(Number);
  throw new Error(`"${colour}" is not a colour of the form #rrggbb or rgb(r, g, b)`);
}

/** [r, g, b] -> "#rrggbb". */
export function hex(colour) {
  return `#${colour.map((value) => Math.round(value).toString(16).padStart(2, "0")).join("")}`;
}

/** Relative luminance (WCAG 2). */
export function luminance(colour) {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast of two colours [r, g, b] (WCAG 2): 1 to 21. */
export function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

/** What is seen where `colour` lies with opacity `alpha` on `paper` (all [r, g, b]). */
export function blend(colour, paper, alpha) {
  return colour.map((value, i) => Math.round(value * alpha + paper[i] * (1 - alpha)));
}

const SECOND = [213, 94, 0];

/** What a person is drawn in, as [r, g, b]: who is not the first is told apart where both touch. */
export function personColour(colour, person) {
  return person ? blend(SECOND, rgb(colour), 0.75) : rgb(colour);
}

// Pure black: with anything lighter there are greys on which neither ink reaches a contrast of 4.5.
const DARK = "#000000";
const LIGHT = "#ffffff";

/** Black or white: the ink that is read better on `colour` [r, g, b]. */
export function inkOn(colour) {
  return contrast(rgb(DARK), colour) >= contrast(rgb(LIGHT), colour) ? DARK : LIGHT;
}
