// Skeletons as small drawings: one common scale for the clip, so that big and small can be compared.

import { decode } from "./decode.js";

/** A payload's poses with their bones by side; null where none were recorded. */
export function readSkeleton(manifest, data) {
  if (!manifest.poses || !data) return null;
  return {
    poses: decode(manifest.poses, data),
    shape: manifest.poses.shape,
    groups: bonesBySide(manifest.bones, manifest.sides),
    head: manifest.head_joint,
    yDown: manifest.units === "image",
  };
}

/** Indices of the persons who are there in a segment. */
export function personsIn(manifest, skeleton, segment) {
  const all = [];
  for (let m = 0; m < skeleton.shape[0]; m++) {
    if (manifest.poses_present?.[m]?.[segment] ?? true) all.push(m);
  }
  return all;
}

/**
 * The scale and the centres at which a segment's poses are drawn.
 *
 * Across, every frame is centred on its own persons, so that somebody who walks does not shrink; up and
 * down, the clip shares one frame of reference, so that sitting down is seen.
 *
 * @param {Float32Array} poses (m, k, t, v, c)
 * @param {number[]} shape [m, k, t, v, c]
 * @param {number} segment index from 0
 * @param {number[]} persons indices from 0 of the persons that are drawn
 * @param {boolean} yDown image coordinates, whose y grows downwards
 * @param {number} overlap how many times the room of its frame a pose may take in width
 * @returns {{centre: Float32Array, middle: number, width: number, height: number, sign: number}}
 *   centre: x of each frame's middle; width: the room that suffices for nine frames of ten; height:
 *   what all need
 */
export function fitPoses(poses, shape, segment, persons, yDown, overlap) {
  const [, segments, frames, joints, coordinates] = shape;
  const centre = new Float32Array(frames);
  const widths = [];
  let bottom = Infinity;
  let top = -Infinity;
  for (let t = 0; t < frames; t++) {
    let left = Infinity;
    let right = -Infinity;
    for (let p = 0; p < persons.length; p++) {
      const start = ((persons[p] * segments + segment) * frames + t) * joints * coordinates;
      for (let v = 0; v < joints; v++) {
        const x = poses[start + v * coordinates];
        const y = poses[start + v * coordinates + 1];
        if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
        left = Math.min(left, x);
        right = Math.max(right, x);
        bottom = Math.min(bottom, y);
        top = Math.max(top, y);
      }
    }
    if (right < left) continue;
    centre[t] = (left + right) / 2;
    widths.push(right - left);
  }
  widths.sort((a, b) => a - b);
  const width = widths.length ? widths[Math.floor((widths.length - 1) * 0.9)] : 1;
  return {
    centre,
    middle: top > bottom ? (top + bottom) / 2 : 0,
    width: (width || 1) / overlap,
    height: top > bottom ? top - bottom : 1,
    sign: yDown ? 1 : -1,
  };
}

const MARGIN = 1.05;

/** Pixels per unit of length with which the poses fill a frame's room. */
export function poseScale(fit, room) {
  return Math.min(room.height / (fit.height * MARGIN), room.width / fit.width);
}

/** How high a frame's room must be, as a multiple of its width, for the poses to fill it. */
export function poseRatio(fit) {
  return (fit.height * MARGIN) / fit.width;
}

/** Bones (pairs of joints) by side of the body; one that leaves the trunk belongs to its limb. */
export function bonesBySide(bones, sides) {
  const groups = { left: [], centre: [], right: [] };
  for (const bone of bones) {
    const side = bone.map((joint) => sides?.[joint]).find((name) => name && name !== "centre");
    groups[side ?? "centre"].push(bone);
  }
  return groups;
}

/**
 * Draw one person in one frame.
 *
 * @param {CanvasRenderingContext2D} g
 * @param {{poses: Float32Array, shape: number[], groups: object, head: number|null}} skeleton
 * @param {{person: number, segment: number, frame: number}} which indices from 0
 * @param {{x: number, y: number, scale: number, line: number, ink: string, paler: string}} how
 *   x, y: pixel to which the frame's centre comes; `paler` is for the limbs of the left
 */
export function drawPose(g, skeleton, fit, which, how) {
  const { poses, shape, groups, head } = skeleton;
  const [, segments, frames, joints, coordinates] = shape;
  const start =
    ((which.person * segments + which.segment) * frames + which.frame) * joints * coordinates;
  const centre = fit.centre[which.frame];
  const x = [];
  const y = [];
  for (let v = 0; v < joints; v++) {
    x.push(how.x + (poses[start + v * coordinates] - centre) * how.scale);
    y.push(how.y + (poses[start + v * coordinates + 1] - fit.middle) * how.scale * fit.sign);
  }
  const seen = (joint) => Number.isFinite(x[joint]) && Number.isFinite(y[joint]);
  g.save();
  g.lineWidth = how.line;
  g.lineCap = g.lineJoin = "round";
  for (const side of ["left", "centre", "right"]) {
    g.strokeStyle = side === "left" ? how.paler : how.ink;
    g.beginPath();
    for (const [outer, inner] of groups[side]) {
      if (!seen(outer) || !seen(inner)) continue;
      g.moveTo(x[outer], y[outer]);
      g.lineTo(x[inner], y[inner]);
    }
    g.stroke();
  }
  if (head !== null && head !== undefined && seen(head)) {
    g.fillStyle = how.ink;
    g.beginPath();
    g.arc(x[head], y[head], Math.max(1.8, how.scale * fit.height * 0.045), 0, 2 * Math.PI);
    g.fill();
  }
  g.restore();
}
