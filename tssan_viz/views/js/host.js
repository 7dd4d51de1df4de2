// A view in its host, shaped as anywidget wants it: { render({ model, el }) }.

import { element } from "./dom.js";
import { createModel } from "./model.js";
import css from "./style.css";

const STATE = [
  "layer", "heads", "locked", "segment", "person", "orientation", "threshold", "frame", "head", "step", "lit",
];
const PAYLOAD = ["manifest", "maps", "poses", "outlined", "earlier", "query_vectors", "key_vectors", "plane", "parts"];

/**
 * What shows the views that are given.
 *
 * @param {Object<string, function>} views by their names in a manifest; each takes what `headView` takes
 * @returns {{render: function, mount: function}}
 */
export function hosting(views) {
  function render({ model, el }) {
    const root = element("div", { className: "tssan-view" });
    el.replaceChildren(element("style", { textContent: css }), root);
    let view = null;
    let waiting = false;

    const state = () => Object.fromEntries(STATE.map((key) => [key, model.get(key)]));
    const tell = (difference) => {
      for (const key in difference) model.set(key, difference[key]);
      model.save_changes();
    };
    const build = () => {
      waiting = false;
      view?.destroy();
      view = null;
      const manifest = model.get("manifest");
      try {
        if (manifest?.schema !== 1 || !views[manifest.view]) {
          throw new Error("there is no view for this: " + JSON.stringify(manifest)?.slice(0, 200));
        }
        const tensors = Object.fromEntries(PAYLOAD.slice(1).map((name) => [name, model.get(name)]));
        view = views[manifest.view](root, manifest, tensors, state(), tell);
        // Whether what the attention points at matters, where that was tested: under every map.
        if (manifest.evidence) root.append(element("p", { className: "caption evidence" }, manifest.evidence));
      } catch (error) {
        root.replaceChildren(element("p", { className: "message", textContent: error.message }));
      }
    };
    // Manifest and tensors arrive one after the other: build once, when all of them are there.
    const rebuild = () => {
      if (waiting) return;
      waiting = true;
      queueMicrotask(() => waiting && build());
    };
    const update = () => view?.update(state());

    for (const key of PAYLOAD) model.on(`change:${key}`, rebuild);
    for (const key of STATE) model.on(`change:${key}`, update);
    build();

    return () => {
      for (const key of PAYLOAD) model.off(`change:${key}`, rebuild);
      for (const key of STATE) model.off(`change:${key}`, update);
      waiting = false;
      view?.destroy();
      el.replaceChildren();
    };
  }

  /** Show a payload where there is no host: returns the model, which holds the state. */
  function mount(el, values) {
    const model = createModel(values);
    render({ model, el });
    return model;
  }

  return { render, mount };
}
