// Questions to one layer's weights (h, q, s), as plain functions.

/**
 * The strongest weights, weakest first, so that the strong are painted over the weak.
 *
 * @param {Float32Array} weights (h, q, s) of one layer
 * @param {number[]} size [h, q, s]
 * @param {number[]} heads indices (from 0) of the heads that are on
 * @param {{side: "query"|"key", frame: number}|null} focus only lines of this frame
 * @param {number} limit how many lines at the most
 * @param {number} above only weights larger than this
 * @returns {{head: Uint16Array, query: Uint16Array, key: Uint16Array, weight: Float32Array, above: number,
 *   total: number}} `total` counts the weights there were to choose from, `above` those large enough
 */
export function strongestLines(weights, size, heads, focus, limit = 4000, above = 0) {
  const [, queries, keys] = size;
  const firstQuery = focus?.side === "query" ? focus.frame : 0;
  const lastQuery = focus?.side === "query" ? focus.frame + 1 : queries;
  const firstKey = focus?.side === "key" ? focus.frame : 0;
  const lastKey = focus?.side === "key" ? focus.frame + 1 : keys;
  const total = heads.length * (lastQuery - firstQuery) * (lastKey - firstKey);
  const candidates = new Float32Array(total);
  const places = new Uint32Array(total);
  let n = 0;
  for (let h = 0; h < heads.length; h++) {
    for (let q = firstQuery; q < lastQuery; q++) {
      const row = (heads[h] * queries + q) * keys;
      for (let s = firstKey; s < lastKey; s++) {
        if (!(weights[row + s] > above)) continue;
        candidates[n] = weights[row + s];
        places[n++] = row + s;
      }
    }
  }
  let threshold = 0;
  let ties = limit;
  if (n > limit) {
    const sorted = candidates.slice(0, n).sort();
    threshold = sorted[n - limit];
    let above = 0;
    while (above < limit && sorted[n - 1 - above] > threshold) above++;
    ties = limit - above;
  }
  const chosen = new Uint32Array(Math.min(n, limit));
  // A weight above 0 is ordered as its bits are; with its place below them, numbers can be sorted,
  // which takes the browser a fraction of what a comparison of our own does.
  const bits = new Uint32Array(candidates.buffer);
  const order = new Float64Array(chosen.length);
  let kept = 0;
  for (let i = 0; i < n; i++) {
    if (!(candidates[i] > threshold) && !(candidates[i] === threshold && ties-- > 0)) continue;
    order[kept] = bits[i] * limit + kept;
    chosen[kept++] = i;
  }
  order.sort();
  const lines = {
    head: new Uint16Array(kept),
    query: new Uint16Array(kept),
    key: new Uint16Array(kept),
    weight: new Float32Array(kept),
    above: n,
    total,
  };
  for (let i = 0; i < kept; i++) {
    const at = chosen[order[i] % limit];
    const place = places[at];
    lines.head[i] = Math.floor(place / (queries * keys));
    lines.query[i] = Math.floor(place / keys) % queries;
    lines.key[i] = place % keys;
    lines.weight[i] = candidates[at];
  }
  return lines;
}

/** The largest weight of the heads that are on. */
export function strongestOf(weights, heads, plane) {
  let most = 0;
  for (let h = 0; h < heads.length; h++) {
    for (let i = heads[h] * plane; i < (heads[h] + 1) * plane; i++) if (weights[i] > most) most = weights[i];
  }
  return most;
}

/** The mean map (q, s) of the heads that are on; a weight that is no number (NaN) is left out. */
export function meanMap(weights, heads, plane) {
  const maps = [];
  for (let h = 0; h < heads.length; h++) maps.push(weights.subarray(heads[h] * plane, (heads[h] + 1) * plane));
  return meanOverHeads(maps, plane);
}

/** How many weights of the heads that are on are no numbers (NaN). */
export function countMissing(weights, heads, plane) {
  let missing = 0;
  for (let h = 0; h < heads.length; h++) {
    const map = weights.subarray(heads[h] * plane, (heads[h] + 1) * plane);
    if (!map.includes(NaN)) continue; // as nearly always; the browser's own search is soon through
    for (let i = 0; i < plane; i++) if (map[i] !== map[i]) missing++;
  }
  return missing;
}

/** Float16 may write 1/n a little larger than it is: what is above even attention is above this. */
export function evenBound(even) {
  return even * (1 + 2 ** -10);
}

/**
 * How far a weight lies above even attention, as a share of the way to the strongest: 0 to 1.
 *
 * Attention that is spread out has its weights close to 1/n; drawn from 0 they would all look alike.
 */
export function aboveEven(weight, even, strongest) {
  if (!(weight > 0)) return 0;
  if (!(strongest > evenBound(even))) return strongest > 0 ? weight / strongest : 0;
  return Math.max(0, (weight - even) / (strongest - even));
}

/**
 * What each frame of the other side has to do with the focus, head by head.
 *
 * With a query frame in focus: its row. With a key frame: its column. Without: how much each key
 * frame receives, as the mean over all query frames.
 *
 * @returns {Float32Array[]} per head that is on, one weight per frame
 */
export function weightsPerFrame(weights, size, heads, focus) {
  const [, queries, keys] = size;
  const result = [];
  for (let h = 0; h < heads.length; h++) {
    const base = heads[h] * queries * keys;
    if (focus?.side === "query") {
      result.push(weights.slice(base + focus.frame * keys, base + (focus.frame + 1) * keys));
    } else if (focus) {
      const column = new Float32Array(queries);
      for (let q = 0; q < queries; q++) column[q] = weights[base + q * keys + focus.frame];
      result.push(column);
    } else {
      const rows = [];
      for (let q = 0; q < queries; q++) rows.push(weights.subarray(base + q * keys, base + (q + 1) * keys));
      result.push(meanOverHeads(rows, keys));
    }
  }
  return result;
}

/**
 * The mean over heads of what `weightsPerFrame` gave. What is no number (NaN) is left out; where all
 * are none, the mean is none.
 */
export function meanOverHeads(perHead, frames) {
  const sums = new Float64Array(frames);
  const counts = new Uint32Array(frames);
  for (let h = 0; h < perHead.length; h++) {
    const row = perHead[h];
    for (let i = 0; i < frames; i++) {
      if (row[i] !== row[i]) continue;
      sums[i] += row[i];
      counts[i]++;
    }
  }
  const mean = new Float32Array(frames);
  for (let i = 0; i < frames; i++) mean[i] = counts[i] || !perHead.length ? sums[i] / Math.max(counts[i], 1) : NaN;
  return mean;
}

/** The places of the `count` largest values, largest first; what is no number has no place. */
export function largest(values, count) {
  const order = [];
  for (let i = 0; i < values.length; i++) if (values[i] === values[i]) order.push(i);
  return order.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

/** A weight as it is said and printed: three places, never a false zero. */
export function weightText(weight) {
  if (weight !== weight) return "not a number";
  if (weight === 0) return "0";
  if (Math.abs(weight) < 0.0005) return weight.toExponential(1);
  return weight.toFixed(3);
}
