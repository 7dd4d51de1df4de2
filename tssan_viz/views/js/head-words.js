// What the head view shows, in words.

import { largest, weightText } from "./attention.js";
import { element } from "./dom.js";
import { isPresent, tokenName } from "./state.js";

/**
 * @param {object} scene what is shown of which layer, heads, segment and person; see head-view.js
 * @param {object} seen what of it is pointed at: focus, other, perHead, mean, lines, pair
 * @returns {(string|Node)[]}
 */
export function words(scene, seen) {
  const { manifest, state, on, labels, segment, missing, plane } = scene;
  if (!isPresent(manifest, segment, manifest.persons.indexOf(state.person))) {
    return [`Person ${state.person} is not in segment ${state.segment}: nothing was recorded.`];
  }
  if (!on.length) return ["No head is on."];
  const { focus, other, perHead, mean, lines, pair } = seen;
  const token = tokenName(manifest);
  const heads = on.length === 1 ? `head ${state.heads[0]}` : `mean of ${on.length} heads`;
  if (missing === on.length * plane) {
    return [`Layer ${state.layer}, ${heads}: not one weight is a number (NaN); the network gave none, so nothing is drawn.`];
  }
  const left = missing ? ` ${missing} of ${on.length * plane} weights are no numbers (NaN) and are left out.` : "";
  if (!focus) return [overview(scene, lines, token), left];

  const seconds = manifest.seconds?.[segment]?.[focus.frame];
  const time = Number.isFinite(seconds) ? ` (${seconds.toFixed(2)} s)` : "";
  const locked = state.locked ? ", locked" : "";
  const who = element("strong", { dir: "auto" }, `${focus.side === "query" ? "Query" : "Key"} ${token} ${labels[focus.side](focus.frame)}${time}${locked}`);
  if (pair) {
    const query = focus.side === "query" ? focus.frame : pair.frame;
    const key = focus.side === "query" ? pair.frame : focus.frame;
    const each = on.map((h, i) => `head ${manifest.heads[h]} ${weightText(perHead[i][pair.frame])}`);
    return [who, ` · query ${apart(labels.query(query))} → key ${apart(labels.key(key))}: ${heads} ${weightText(mean[pair.frame])} (${each.join(", ")})`];
  }
  const best = largest(mean, 5);
  if (!best.length) return [who, ` has no weight that is a number (NaN) in layer ${state.layer}, ${heads}: nothing to draw.`];
  const does = focus.side === "query" ? `attends to key ${token}s` : `is attended by query ${token}s`;
  const top = best.map((frame) => `${apart(labels[other](frame))}: ${weightText(mean[frame])}`);
  const some = lines.weight.length < lines.above ? `; the ${lines.weight.length} strongest of ${lines.above} lines` : "";
  return [who, ` ${does} ${top.join(" · ")} — layer ${state.layer}, ${heads}; shade: above ${bound(scene)}${some}.`, left];
}

/** A word that is read from right to left does not turn round what stands beside it. */
function apart(label) {
  return /[\u0590-\u08ff]/.test(label) ? `\u2068${label}\u2069` : label;
}

function bound({ even }) {
  return `even attention (1/${Math.round(1 / even)})`;
}

function overview(scene, lines, token) {
  const { manifest, state, on } = scene;
  const start = `Layer ${state.layer}, ${on.length} of ${manifest.heads.length} heads: `;
  const bars = `bars: what each key ${token} receives (mean over query ${token}s)`;
  const shown = lines.weight.length;
  const least = state.threshold ? ` and ${Math.round(100 * state.threshold)} % of the strongest` : "";
  if (!shown) {
    return `${start}no weight lies above ${bound(scene)}${least}: every query ${token} attends to all key ${token}s alike, and no line is drawn; ${bars}.`;
  }
  const part =
    shown < lines.above
      ? `the ${shown} strongest of the ${lines.above} weights above ${bound(scene)}${least}`
      : `the ${shown} of ${lines.total} weights above ${bound(scene)}${least}`;
  return `${start}${part}; ${bars}.${sparse(scene, token)}`;
}

/** Where not every frame has room for its pose, that is said. */
function sparse({ skeleton, layout }, token) {
  const every = skeleton ? layout.poseEvery("query") : 1;
  return every > 1 ? ` There is room for the pose of every ${ordinal(every)} ${token}.` : "";
}

function ordinal(n) {
  const ending = { 1: "st", 2: "nd", 3: "rd" }[n % 10];
  return `${n}${ending && Math.floor(n / 10) % 10 !== 1 ? ending : "th"}`;
}
