// One head along the steps of training: its mean map at a step, and lines of what is measured of it.

import { weightText } from "./attention.js";
import { decode } from "./decode.js";
import { element, sizeCanvas } from "./dom.js";
import { HEAD_COLOURS } from "./colours.js";
import { paintedIn } from "./frame.js";
import { heatMaps } from "./heat-maps.js";
import { rangeOf } from "./scale.js";
import { inks } from "./theme.js";

/**
 * Show an evolution in `root`; see `headView` for the arguments.
 *
 * Manifest: steps, title, maps f4 [n, q, s] (one per step), labels, lines [{name, values}] (one value or
 * null per step, from 0 to 1). State: step.
 */
export function evolutionView(root, manifest, tensors, given, onState) {
  const values = decode(manifest.maps, tensors.maps);
  const [count, queries, keys] = manifest.maps.shape;
  const plane = queries * keys;
  const state = { step: manifest.steps[count - 1] };
  const range = rangeOf(values);
  let timer = 0;
  let maps = null;
  let place = null;

  const play = element("button", { type: "button", textContent: "play" });
  const slider = element("input", { type: "range", min: 0, max: count - 1, step: 1, attributes: { "aria-label": "step" } });
  const shown = element("output");
  const controls = element(
    "div", { className: "controls" }, play, element("label", { className: "control" }, "Step", slider, shown),
  );
  const inner = element("div", { className: "tssan-view" });
  const canvas = element("canvas", { attributes: { role: "img", "aria-label": `${manifest.lines.map((line) => line.name).join(" and ")} along the steps` } });
  const stage = element("div", { className: "lines" }, canvas);
  const reading = element("p", { className: "reading", attributes: { "aria-live": "polite" } });
  root.append(element("p", { className: "caption" }, element("strong", {}, manifest.title)), controls,
    element("div", { className: "beside" }, inner, stage), reading);
  const view = paintedIn(root, stage, draw);

  function showMap() {
    maps?.destroy();
    const at = manifest.steps.indexOf(state.step);
    maps = heatMaps(
      inner,
      { titles: [`step ${state.step}`], kinds: ["seq"], labels: manifest.labels, units: { seq: "mean attention weight" }, even: 1 / keys,
        maps: { dtype: "f4", shape: [1, queries, keys] }, ranges: { seq: range } },
      { maps: values.subarray(at * plane, (at + 1) * plane) },
      {},
    );
  }

  function draw(width) {
    const wide = Math.min(width, 640);
    const tall = 220;
    const [left, right, top, bottom] = [36, 12, 12, 34];
    const g = sizeCanvas(canvas, wide, tall);
    const ink = inks(root);
    const first = manifest.steps[0];
    const span = manifest.steps[count - 1] - first || 1;
    const x = (step) => left + ((step - first) / span) * (wide - left - right);
    const y = (value) => tall - bottom - value * (tall - top - bottom);
    place = { x };
    g.font = `10px ${ink.font}`;
    g.textBaseline = "middle";
    for (const value of [0, 0.5, 1]) {
      g.strokeStyle = ink.line;
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(left, y(value));
      g.lineTo(wide - right, y(value));
      g.stroke();
      g.fillStyle = ink.muted;
      g.textAlign = "right";
      g.fillText(value, left - 6, y(value));
    }
    g.textAlign = "center";
    const most = Math.max(1, Math.ceil(count / Math.max(1, Math.floor(wide / 64))));
    for (let i = 0; i < count; i += most) g.fillText(manifest.steps[i], x(manifest.steps[i]), tall - bottom + 12);
    g.fillText("step", (left + wide - right) / 2, tall - 8);
    g.fillStyle = ink.muted;
    g.fillRect(x(state.step) - 1, top, 2, tall - top - bottom);
    manifest.lines.forEach((line, n) => {
      g.strokeStyle = g.fillStyle = n ? HEAD_COLOURS[7] : ink.accent;
      g.lineWidth = 2;
      g.beginPath();
      let open = false;
      line.values.forEach((value, i) => {
        if (!Number.isFinite(value)) open = false;
        else if (open) g.lineTo(x(manifest.steps[i]), y(value));
        else {
          g.moveTo(x(manifest.steps[i]), y(value));
          open = true;
        }
      });
      g.stroke();
      line.values.forEach((value, i) => {
        if (!Number.isFinite(value)) return;
        g.beginPath();
        if (n) g.rect(x(manifest.steps[i]) - 3, y(value) - 3, 6, 6);
        else g.arc(x(manifest.steps[i]), y(value), 3, 0, 2 * Math.PI);
        g.fill();
      });
    });
    const at = manifest.steps.indexOf(state.step);
    const parts = manifest.lines.map(({ name, values: all }, n) => `${n ? "■" : "●"} ${name} ${Number.isFinite(all[at]) ? weightText(all[at]) : "not measured"}`);
    reading.textContent = `Step ${state.step}: ${parts.join(" · ")}`;
  }

  function setPlaying(on) {
    clearInterval(timer);
    timer = 0;
    if (on) timer = setInterval(() => change({ step: manifest.steps[(manifest.steps.indexOf(state.step) + 1) % count] }), 500);
    play.textContent = on ? "pause" : "play";
  }

  function accept(difference) {
    if (manifest.steps.includes(difference.step)) state.step = difference.step;
    slider.value = manifest.steps.indexOf(state.step);
    slider.setAttribute("aria-valuetext", `step ${state.step}`);
    shown.textContent = state.step;
    showMap();
    view.redraw();
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  play.addEventListener("click", () => setPlaying(!timer));
  slider.addEventListener("input", () => change({ step: manifest.steps[Number(slider.value)] }));
  canvas.addEventListener("click", (event) => {
    const at = event.clientX - canvas.getBoundingClientRect().left;
    const near = [...manifest.steps].sort((a, b) => Math.abs(place.x(a) - at) - Math.abs(place.x(b) - at));
    change({ step: near[0] });
  });
  accept(given);
  return {
    update: accept,
    destroy() {
      clearInterval(timer);
      maps?.destroy();
      view.destroy();
    },
  };
}
