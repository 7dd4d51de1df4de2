// Two groups' mean maps and their difference, head by head; cells that differ significantly are outlined.

import { decode } from "./decode.js";
import { element } from "./dom.js";
import { heatMaps } from "./heat-maps.js";
import { themeNow, watchTheme } from "./theme.js";

/**
 * Show a comparison in `root`; see `headView` for the arguments.
 *
 * Manifest: layers, heads (all that occur), places ([layer, head] of each map), titles (three), maps f4
 * [n, 3, q, s] (one group, the other, difference), outlined b1 [n, q, s], parts f4 [n, p, q, s] with part_titles (or neither), labels, units, test, notes.
 * State: layer, head, locked.
 */
export function compareView(root, manifest, tensors, given, onState) {
  const values = decode(manifest.maps, tensors.maps);
  const outlined = decode(manifest.outlined, tensors.outlined);
  const parts = manifest.parts ? decode(manifest.parts, tensors.parts) : null;
  const [queries, keys] = manifest.maps.shape.slice(-2);
  const plane = queries * keys;
  const state = { layer: manifest.layers[manifest.layers.length - 1], head: manifest.heads[0], locked: null };
  let maps = null;
  let multiples = null;

  const choices = {};
  const controls = element("div", { className: "controls" });
  for (const [key, list] of [["layer", manifest.layers], ["head", manifest.heads]]) {
    const select = element("select", { attributes: { "aria-label": key } });
    for (const item of list) select.append(element("option", { value: item, textContent: String(item) }));
    select.addEventListener("change", () => change({ [key]: Number(select.value) }));
    choices[key] = select;
    controls.append(element("label", { className: "control" }, key === "layer" ? "Layer" : "Head", select));
  }
  const inner = element("div", { className: "tssan-view" });
  const note = element("p", { className: "reading" });
  const below = element("div", { className: "tssan-view" });
  root.append(controls, inner, note);
  if (parts) root.append(element("h2", {}, "One by one"), below);

  function show() {
    maps?.destroy();
    multiples?.destroy();
    const place = manifest.places.findIndex(([layer, head]) => layer === state.layer && head === state.head);
    if (place < 0) {
      maps = multiples = null;
      note.textContent = `Head ${state.head} of layer ${state.layer} was not compared.`;
      return;
    }
    const cells = outlined.subarray(place * plane, (place + 1) * plane);
    maps = heatMaps(
      inner,
      {
        titles: manifest.titles, kinds: ["seq", "seq", "div"], labels: manifest.labels, units: manifest.units, even: 1 / keys,
        maps: { dtype: "f4", shape: [3, queries, keys] },
      },
      { maps: values.subarray(place * 3 * plane, (place + 1) * 3 * plane), outlined: cells },
      state,
    );
    if (parts) {
      const count = manifest.part_titles.length;
      multiples = heatMaps(
        below,
        {
          titles: manifest.part_titles, kinds: Array(count).fill("seq"), labels: manifest.labels, units: manifest.units, even: 1 / keys,
          maps: { dtype: "f4", shape: [count, queries, keys] },
        },
        { maps: parts.subarray(place * count * plane, (place + 1) * count * plane) },
        state,
      );
    }
    let count = 0;
    for (let i = 0; i < cells.length; i++) count += cells[i] ? 1 : 0;
    const said = manifest.tested === false ? "" : count ? `${count} of ${plane} cells differ significantly and are outlined.` : "No cell differs significantly.";
    note.textContent = [said, manifest.test ?? "", ...(manifest.notes ?? [])].filter(Boolean).join(" ");
  }

  function accept(difference) {
    const before = `${state.layer} ${state.head}`;
    if (manifest.layers.includes(difference.layer)) state.layer = difference.layer;
    if (manifest.heads.includes(difference.head)) state.head = difference.head;
    if (difference.locked !== undefined) state.locked = difference.locked;
    for (const key in choices) choices[key].value = state[key];
    if (maps && before === `${state.layer} ${state.head}`) {
      maps.update(state);
      multiples?.update(state);
    } else show();
  }

  function change(difference) {
    accept(difference);
    onState(difference);
  }

  const applyTheme = () => (root.dataset.theme = themeNow());
  applyTheme();
  const end = watchTheme(applyTheme);
  accept(given);
  return {
    update: accept,
    destroy() {
      end();
      maps?.destroy();
      multiples?.destroy();
      root.replaceChildren();
    },
  };
}
