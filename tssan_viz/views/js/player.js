// The skeleton in three dimensions, played; its frames or its joints are lit by attention.

import { aboveEven, largest, meanOverHeads, weightsPerFrame, weightText } from "./attention.js";
import { VIRIDIS } from "./colour-maps.js";
import { blend, hex, personColour, rgb } from "./colours.js";
import { element, sizeCanvas } from "./dom.js";
import { paintedIn } from "./frame.js";
import { readSkeleton } from "./pose.js";
import { paintScale, rangeOf } from "./scale.js";
import { frameLabels, headsOn, initialState, readMaps, take, weightsOf } from "./state.js";
import { inks } from "./theme.js";

const BAR = 46;
const SCALE = 36; // above the skeleton, where joints are lit

/** A point (x, y, z) turned by yaw about the vertical and then by pitch about the horizontal axis. */
export function turned([x, y, z], yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const depth = -sy * x + cy * z;
  return [cy * x + sy * z, cp * y - sp * depth, sp * y + cp * depth];
}

/** The middle of all finite joints of the persons and how far the farthest lies from it. */
export function extent(poses, shape, segment, persons) {
  const [, segments, frames, joints, coordinates] = shape;
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (const m of persons) {
    const start = (m * segments + segment) * frames * joints * coordinates;
    for (let i = 0; i < frames * joints; i++) {
      for (let c = 0; c < Math.min(coordinates, 3); c++) {
        const value = poses[start + i * coordinates + c];
        if (!Number.isFinite(value)) continue;
        low[c] = Math.min(low[c], value);
        high[c] = Math.max(high[c], value);
      }
    }
  }
  const middle = low.map((value, c) => (high[c] >= value ? (value + high[c]) / 2 : 0));
  const radius = Math.hypot(...low.map((value, c) => (high[c] >= value ? (high[c] - value) / 2 : 0)));
  return { middle, radius: radius || 1 };
}

/** Show the player in `root`; see `headView` for the arguments. */
export function player(root, manifest, tensors, given, onState) {
  const values = readMaps(manifest, tensors);
  const [heads, queries, keys] = manifest.maps.shape.slice(-3);
  const skeleton = readSkeleton(manifest, tensors.poses);
  if (!skeleton) {
    root.append(element("p", { className: "message", textContent: "No poses were recorded: there is nothing to play." }));
    return { update() {}, destroy: () => root.replaceChildren() };
  }
  const frames = skeleton.shape[2];
  const flat = skeleton.shape[4] < 3;
  const state = initialState(manifest);
  let [yaw, pitch] = flat ? [0, 0] : [0.45, -0.12];
  let timer = 0;
  let drag = null;
  let bar = BAR; // what the frames get stands below the skeleton, where they get anything
  let seen = []; // where the joints of the persons who are lit lie: {x, y, joint}
  // Maps between joints light the joints; otherwise they are lit by what was found out about them.
  const between = manifest.token === "joint";

  const play = element("button", { type: "button", textContent: "play" });
  const slider = element("input", {
    type: "range", min: 0, max: frames - 1, step: 1, attributes: { "aria-label": "frame" },
  });
  const shown = element("output");
  const speed = element("select", { attributes: { "aria-label": "speed" } });
  for (const rate of [0.25, 0.5, 1, 2]) speed.append(element("option", { value: rate, textContent: `${rate} ×` }));
  speed.value = "1";
  const loop = element("input", { type: "checkbox", checked: true });
  const controls = element(
    "div", { className: "controls" }, play,
    element("label", { className: "control" }, "Frame", slider, shown),
    element("label", { className: "control" }, "Speed", speed),
    element("label", { className: "control" }, loop, "loop"),
  );
  const light = element("select", { attributes: { "aria-label": "what is lit" } });
  for (const what of ["frames", "joints"]) light.append(element("option", { value: what, textContent: what }));
  light.addEventListener("change", () => change({ lit: light.value }));
  if (manifest.joints_lost && !between) controls.append(element("label", { className: "control" }, "Lit", light));
  const canvas = element("canvas");
  const stage = element(
    "div",
    { className: "stage turning", tabIndex: 0, attributes: {
      role: "application",
      "aria-label": "Skeleton. Drag or arrow keys turn it, comma and full stop step through the frames, space plays, Enter locks the frame.",
    } },
    canvas,
  );
  const reading = element("p", { className: "reading", attributes: { "aria-live": "off" } });
  root.append(controls, stage, reading);
  const view = paintedIn(root, stage, draw);

  function persons() {
    const segment = manifest.segments.indexOf(state.segment);
    const all = [];
    for (let m = 0; m < skeleton.shape[0]; m++) if (manifest.poses_present?.[m]?.[segment] ?? true) all.push(m);
    return all;
  }

  function draw(width) {
    const wide = width;
    const tall = Math.round(Math.min(wide * 0.8, wide > 560 ? 480 : 360));
    const joints = between || (manifest.joints_lost && state.lit === "joints");
    const top = joints ? SCALE : 0;
    light.value = state.lit;
    const on = headsOn(manifest, state);
    const focus = state.locked;
    const perHead = weightsPerFrame(weightsOf(manifest, values, state), [heads, queries, keys], on, focus);
    const other = focus?.side === "key" ? queries : keys;
    const mean = meanOverHeads(perHead, other);
    const tied = other === frames && on.length > 0 && !between;
    bar = tied ? BAR : 12;
    const g = sizeCanvas(canvas, wide, top + tall + bar);
    const ink = inks(root);
    const most = mean.reduce((high, weight) => Math.max(high, weight), 0);
    const lit = tied && !joints ? aboveEven(mean[state.frame], 1 / other, most) : 0;
    g.save();
    g.translate(0, top);
    const lights = joints ? lightsOf(mean) : null;
    paintPersons(g, ink, wide, tall, lit, lights);
    if (tied) paintTimeline(g, ink, wide, tall, mean, most);
    g.restore();
    if (lights) paintScale(g, ink, { x: 12, y: 8, length: Math.min(220, wide - 60), upright: false }, lights.range, lights.mark);
    slider.value = state.frame;
    const label = frameLabels(manifest, manifest.segments.indexOf(state.segment), frames);
    shown.textContent = label(state.frame);
    if (lights) {
      reading.textContent = jointWords(lights, focus);
      return;
    }
    const says = focus ? (focus.side === "query" ? `query frame ${label(focus.frame)} gives it` : `it gives key frame ${label(focus.frame)}`) : "on the mean it receives";
    reading.textContent = tied ? `Frame ${label(state.frame)}: ${says} ${weightText(mean[state.frame])}; even attention is ${weightText(1 / keys)}.` : `Frame ${label(state.frame)}`;
  }

  /** What lights the joints: by person, or null for a person whom the maps do not tell of. */
  function lightsOf(mean) {
    const who = persons();
    const of = (m) => {
      if (!between) return manifest.joints_lost[m] ?? null;
      return manifest.fused || m === state.person - 1 ? mean : null;
    };
    const values = who.map(of);
    const range = rangeOf(values.flatMap((one) => (one ? Array.from(one) : [])));
    return { values: new Map(who.map((m, i) => [m, values[i]])), range, mark: between ? 1 / keys : 0 };
  }

  function jointWords({ values, mark }, focus) {
    const named = [];
    for (const [m, one] of values) {
      for (const v of one ? largest(one, 3) : []) named.push({ m, v, value: one[v] });
    }
    named.sort((a, b) => b.value - a.value);
    const who = [...values.values()].filter(Boolean).length > 1;
    const most = named.slice(0, 3)
      .map(({ m, v, value }) => `${manifest.joint_names[v]}${who ? ` of person ${m + 1}` : ""} ${weightText(value)}`)
      .join(", ");
    if (!between) return `Joints lit by what the logit of ${manifest.class_name} loses when one rests: most ${most}; ▾ 0.`;
    const name = focus && manifest.joint_names[focus.frame];
    const says = !focus ? "the attention that they receive, mean over query joints"
      : focus.side === "query" ? `what query joint ${name} gives them` : `what they give key joint ${name}`;
    return `Joints lit by ${says}: most ${most}; ▾ even attention, ${weightText(mark)}.`;
  }

  function paintPersons(g, ink, wide, tall, lit, lights) {
    const segment = manifest.segments.indexOf(state.segment);
    const who = persons();
    const { poses, shape, groups } = skeleton;
    const [, segments, , joints, coordinates] = shape;
    const { middle, radius } = extent(poses, shape, segment, who);
    const scale = (0.52 * Math.min(wide, tall)) / radius;
    const sign = skeleton.yDown ? 1 : -1;
    const bones = [];
    const dots = [];
    for (const m of who) {
      const start = ((m * segments + segment) * frames + state.frame) * joints * coordinates;
      const colour = lights
        ? personColour(ink.muted, m)
        : blend(personColour(ink.accent, m), personColour(ink.ink, m), lit);
      // Thinner in front: where two stand at one place, both are seen.
      const line = (3.5 + 2.5 * lit) * (m ? 0.7 : 1);
      const at = (joint) => {
        const raw = [0, 1, 2].map((c) => (c < coordinates ? poses[start + joint * coordinates + c] - middle[c] : 0));
        const [x, y, z] = turned(raw, yaw, pitch);
        const near = (3.5 * radius) / (3.5 * radius - z);
        return [wide / 2 + x * scale * near, tall / 2 + sign * y * scale * near, z];
      };
      for (const side in groups) {
        for (const [a, b] of groups[side]) {
          const [p, q] = [at(a), at(b)];
          if ([...p, ...q].every(Number.isFinite)) bones.push({ p, q, z: (p[2] + q[2]) / 2, left: side === "left", colour, line });
        }
      }
      if (skeleton.head !== null && skeleton.head !== undefined) {
        const p = at(skeleton.head);
        if (p.every(Number.isFinite)) bones.push({ p, z: p[2], colour, line });
      }
      const values = lights?.values.get(m);
      for (let joint = 0; values && joint < joints; joint++) {
        const p = at(joint);
        if (p.every(Number.isFinite)) dots.push({ x: p[0], y: p[1], z: p[2], joint, value: values[joint] });
      }
    }
    bones.sort((one, two) => one.z - two.z);
    g.lineCap = "round";
    for (const { p, q, z, left, colour, line } of bones) {
      const strength = (left ? 0.62 : 1) * (0.65 + (0.35 * (z / radius + 1)) / 2);
      g.strokeStyle = g.fillStyle = hex(blend(colour, rgb(ink.paper), strength));
      g.lineWidth = line;
      g.beginPath();
      if (q) {
        g.moveTo(p[0], p[1]);
        g.lineTo(q[0], q[1]);
        g.stroke();
      } else {
        g.arc(p[0], p[1], 2 * line, 0, 2 * Math.PI);
        g.fill();
      }
    }
    paintDots(g, ink, dots, lights?.range);
    seen = dots;
  }

  /** Joints in the scale's colours, and the larger the more, so that it is not told by colour alone. */
  function paintDots(g, ink, dots, [low, high] = [0, 0]) {
    g.lineWidth = 1;
    for (const { x, y, value, joint } of dots.sort((one, two) => one.z - two.z)) {
      const known = value === value;
      const share = known && high > low ? (value - low) / (high - low) : 0;
      g.fillStyle = known ? `#${VIRIDIS.slice(6 * Math.round(255 * share), 6 * Math.round(255 * share) + 6)}` : ink.paper;
      g.strokeStyle = ink.ink;
      g.beginPath();
      g.arc(x, y, 3 + 6 * share, 0, 2 * Math.PI);
      g.fill();
      g.stroke();
      if (!between || state.locked?.frame !== joint) continue;
      g.beginPath();
      g.arc(x, y, 6 + 6 * share, 0, 2 * Math.PI);
      g.stroke();
    }
  }

  /** What each frame gets, as bars; the frame shown and the locked frame are marked. */
  function paintTimeline(g, ink, wide, tall, mean, most) {
    const step = (wide - 16) / frames;
    for (let i = 0; i < frames; i++) {
      const high = most ? (mean[i] / most) * (BAR - 14) : 0;
      g.fillStyle = i === state.frame ? ink.accent : hex(blend(rgb(ink.accent), rgb(ink.paper), 0.45));
      g.fillRect(8 + i * step, tall + BAR - 8 - high, Math.max(step - 1, 1), high);
      if (state.locked?.frame === i) {
        g.fillStyle = ink.ink;
        g.fillRect(8 + i * step, tall + BAR - 6, Math.max(step - 1, 1), 4);
      }
    }
  }

  function go(frame) {
    change({ frame: ((frame % frames) + frames) % frames });
  }

  function setPlaying(on) {
    clearInterval(timer);
    timer = 0;
    if (on) {
      timer = setInterval(() => {
        if (state.frame === frames - 1 && !loop.checked) setPlaying(false);
        else go(state.frame + 1);
      }, 100 / Number(speed.value));
    }
    play.textContent = on ? "pause" : "play";
  }

  /** Where maps are between joints, a click on one locks it, as a click on a token does elsewhere. */
  function lockJoint(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top - SCALE];
    const away = (dot) => Math.hypot(dot.x - x, dot.y - y);
    const [near] = [...seen].sort((one, two) => away(one) - away(two));
    if (!near || away(near) > 14) return;
    const same = state.locked?.side === "query" && state.locked.frame === near.joint;
    change({ locked: same ? null : { side: "query", frame: near.joint } });
  }

  function lock() {
    const same = state.locked?.side === "query" && state.locked.frame === state.frame;
    if (frames === queries && !between) change({ locked: same ? null : { side: "query", frame: state.frame } });
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  function accept(difference) {
    const before = state.locked;
    take(manifest, state, difference);
    if (!between && state.locked && state.locked !== before && !timer && difference.frame === undefined) {
      const frame = Math.min(state.locked.frame, frames - 1);
      if (JSON.stringify(before) !== JSON.stringify(state.locked)) state.frame = frame;
    }
    view.redraw();
  }

  play.addEventListener("click", () => setPlaying(!timer));
  speed.addEventListener("change", () => timer && setPlaying(true));
  slider.addEventListener("input", () => go(Number(slider.value)));
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    if (bar === BAR && event.clientY - box.top > box.height - BAR) {
      go(Math.min(frames - 1, Math.max(0, Math.floor(((event.clientX - box.left - 8) / (box.width - 16)) * frames))));
      return;
    }
    drag = { x: event.clientX, y: event.clientY, yaw, pitch };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    yaw = drag.yaw + (event.clientX - drag.x) * 0.01;
    pitch = Math.min(1.4, Math.max(-1.4, drag.pitch + (event.clientY - drag.y) * 0.01));
    view.redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (between && drag && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 4) lockJoint(event);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));
  stage.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") yaw -= 0.15;
    else if (event.key === "ArrowRight") yaw += 0.15;
    else if (event.key === "ArrowUp") pitch = Math.max(-1.4, pitch - 0.1);
    else if (event.key === "ArrowDown") pitch = Math.min(1.4, pitch + 0.1);
    else if (event.key === ",") go(state.frame - 1);
    else if (event.key === ".") go(state.frame + 1);
    else if (event.key === " ") setPlaying(!timer);
    else if (event.key === "Enter") lock();
    else return;
    event.preventDefault();
    view.redraw();
  });
  accept(given);
  return {
    update: accept,
    destroy() {
      clearInterval(timer);
      view.destroy();
    },
  };
}
