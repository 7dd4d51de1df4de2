// The one state that all views of a video share, and what of a change fits the video.

import { decode } from "./decode.js";

/** The state with which a payload is first shown: everything on, the last layer, nothing locked. */
export function initialState(manifest) {
  const present = firstPresent(manifest);
  return {
    layer: manifest.layers[manifest.layers.length - 1],
    heads: [...manifest.heads],
    locked: null,
    segment: present.segment,
    person: present.person,
    orientation: "auto",
    threshold: 0,
    frame: 0,
    lit: "frames",
    step: manifest.steps?.[manifest.steps.length - 1] ?? null,
  };
}

function firstPresent(manifest) {
  for (let k = 0; k < manifest.segments.length; k++) {
    for (let m = 0; m < manifest.persons.length; m++) {
      if (isPresent(manifest, k, m)) {
        return { segment: manifest.segments[k], person: manifest.persons[m] };
      }
    }
  }
  return { segment: manifest.segments[0], person: manifest.persons[0] };
}

export function isPresent(manifest, k, m) {
  return manifest.present ? Boolean(manifest.present[k]?.[m]) : true;
}

/** Take over into `state` what of `change` fits the manifest. */
export function take(manifest, state, change) {
  const [queries, keys] = manifest.maps.shape.slice(-2);
  const frames = { query: queries, key: keys };
  const clip = manifest.poses?.shape[2] ?? keys;
  const fits = {
    layer: (layer) => manifest.layers.includes(layer),
    heads: (list) => Array.isArray(list) && list.every((head) => manifest.heads.includes(head)),
    locked: (at) => at === null || (at?.side in frames && at.frame >= 0 && at.frame < frames[at.side]),
    segment: (segment) => manifest.segments.includes(segment),
    person: (person) => manifest.persons.includes(person),
    orientation: (name) => ["auto", "horizontal", "vertical"].includes(name),
    threshold: (share) => share >= 0 && share <= 1,
    lit: (what) => ["frames", "joints"].includes(what),
    step: (step) => manifest.steps?.includes(step) ?? false,
    frame: (frame) => Number.isInteger(frame) && frame >= 0 && frame < clip,
  };
  for (const key in fits) {
    if (change[key] !== undefined && fits[key](change[key])) state[key] = change[key];
  }
}

/**
 * The maps of the newest step (k, m, layer, h, q, s), followed by those of the earlier ones where the
 * payload has them.
 */
export function readMaps(manifest, tensors) {
  const newest = decode(manifest.maps, tensors.maps);
  if (!manifest.earlier || !tensors.earlier) return newest;
  const earlier = decode(manifest.earlier, tensors.earlier);
  const all = new Float32Array(newest.length + earlier.length);
  all.set(newest);
  all.set(earlier, newest.length);
  return all;
}

/** The steps that can be chosen: those whose maps have come. */
export function stepsOf(manifest, values) {
  const size = manifest.maps.shape.reduce((product, length) => product * length, 1);
  return manifest.steps && values.length === manifest.steps.length * size ? manifest.steps : [];
}

/** The weights (h, q, s) of the step, layer, segment and person that the state names. */
export function weightsOf(manifest, values, state, layer = state.layer) {
  const [segments, persons, layers, heads, queries, keys] = manifest.maps.shape;
  const steps = stepsOf(manifest, values);
  const step = (steps.indexOf(state.step) + 1) % Math.max(steps.length, 1); // the newest lies first
  const segment = manifest.segments.indexOf(state.segment);
  const person = manifest.persons.indexOf(state.person);
  const plane = heads * queries * keys;
  const place = (step * segments + segment) * persons + person;
  const start = (place * layers + manifest.layers.indexOf(layer)) * plane;
  return values.subarray(start, start + plane);
}

/** Places (from 0) of the heads that are on, in ascending order. */
export function headsOn(manifest, state) {
  return state.heads.map((head) => manifest.heads.indexOf(head)).sort((a, b) => a - b);
}

/** The name of each frame of a side; tokens that are no frames of the clip are numbered. */
export function frameLabels(manifest, segment, frames) {
  const labels = manifest.labels?.[segment] ?? [];
  return labels.length === frames ? (frame) => labels[frame] : String;
}

/** What a token is called: the frames of a video, the words of a text, the patches of an image. */
export function tokenName(manifest) {
  return manifest.token ?? "frame";
}
