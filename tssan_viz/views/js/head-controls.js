// What stands above the head view: whose video it is, and what of its attention is shown.

import { headColour, inkOn, rgb } from "./colours.js";
import { element } from "./dom.js";
import { isPresent } from "./state.js";

/** Sample, class, what it was taken for, subject and camera, as far as they are known. */
export function caption(manifest) {
  const parts = [element("strong", {}, manifest.sample ?? "")];
  if (manifest.class_name) parts.push(` · ${manifest.class_name}`);
  if (manifest.predicted_name) {
    parts.push(manifest.correct ? " · recognised" : ` · taken for ${manifest.predicted_name}`);
  }
  if (manifest.subject !== null && manifest.subject !== undefined) parts.push(` · subject ${manifest.subject}`);
  if (manifest.camera !== null && manifest.camera !== undefined) parts.push(` · camera ${manifest.camera}`);
  return element("p", { className: "caption", dir: "auto" }, ...parts);
}

/** A slider over a list of numbers, which says which of them it stands at. */
function slider(name, list, chosen) {
  const input = element("input", {
    type: "range", min: 0, max: list.length - 1, step: 1, attributes: { "aria-label": name },
  });
  const shown = element("output");
  input.addEventListener("input", () => chosen(list[Number(input.value)]));
  input.hidden = list.length === 1;
  return {
    node: element("label", { className: "control" }, name[0].toUpperCase() + name.slice(1), input, shown),
    show(value) {
      input.value = list.indexOf(value);
      input.setAttribute("aria-valuetext", `${name} ${value}`);
      shown.textContent = value;
    },
  };
}

/**
 * @param {object} manifest of the payload
 * @param {number[]} steps that can be chosen; fewer than two need no slider
 * @param {object} on what is called: layer, step, toggle, solo, all, none, segment, person, threshold, turn
 * @returns {{node: HTMLElement, show: (state: object) => void, turned: (horizontal: boolean) => void}}
 */
export function buildControls(manifest, steps, on) {
  const node = element("div", { className: "controls" });
  const layer = slider("layer", manifest.layers, on.layer);
  node.append(layer.node);
  const step = steps.length > 1 ? slider("step", steps, on.step) : null;
  if (step) node.append(step.node);

  const buttons = new Map();
  const chips = element("div", {
    className: "heads", attributes: { role: "group", "aria-label": "attention heads" },
  });
  for (const head of manifest.heads) {
    const colour = headColour(head);
    const button = element("button", {
      type: "button", textContent: String(head), title: `head ${head} (double click: this head alone)`,
      attributes: { "aria-label": `head ${head}` },
    });
    button.style.setProperty("--head", colour);
    button.style.setProperty("--on-head", inkOn(rgb(colour)));
    button.addEventListener("click", () => on.toggle(head));
    button.addEventListener("dblclick", () => on.solo(head));
    buttons.set(head, button);
    chips.append(button);
  }
  const all = element("button", { type: "button", textContent: "all" });
  const none = element("button", { type: "button", textContent: "none" });
  all.addEventListener("click", on.all);
  none.addEventListener("click", on.none);
  node.append(element("div", { className: "control" }, "Heads", chips, all, none));

  const choices = {};
  for (const [key, list] of [["segment", manifest.segments], ["person", manifest.persons]]) {
    if (list.length < 2) continue;
    const select = element("select", { attributes: { "aria-label": key } });
    for (const item of list) select.append(element("option", { value: item, textContent: String(item) }));
    select.addEventListener("change", () => on[key](Number(select.value)));
    choices[key] = select;
    node.append(
      element("label", { className: "control" }, key === "segment" ? "Segment" : "Person", select),
    );
  }
  const least = element("select", {
    title: "lines below this share of the strongest are not drawn", attributes: { "aria-label": "threshold" },
  });
  for (const share of [0, 0.25, 0.5, 0.75, 0.9]) {
    least.append(element("option", { value: share, textContent: share ? `≥ ${100 * share} % of the strongest` : "all" }));
  }
  least.addEventListener("change", () => on.threshold(Number(least.value)));
  node.append(element("label", { className: "control" }, "Lines", least));
  const turn = element("button", { type: "button" });
  turn.addEventListener("click", on.turn);
  node.append(turn);

  return {
    node,
    show(state) {
      layer.show(state.layer);
      step?.show(state.step);
      least.value = state.threshold;
      for (const [head, button] of buttons) {
        button.setAttribute("aria-pressed", String(state.heads.includes(head)));
      }
      for (const key in choices) choices[key].value = state[key];
      if (choices.person) {
        const k = manifest.segments.indexOf(state.segment);
        for (let m = 0; m < manifest.persons.length; m++) {
          choices.person.options[m].disabled = !isPresent(manifest, k, m);
        }
      }
    },
    turned(horizontal) {
      const text = horizontal ? "turn upright" : "turn sideways";
      if (turn.textContent !== text) turn.textContent = text;
    },
  };
}
