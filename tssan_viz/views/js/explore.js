// All views of a video together: a frame locked in one is locked in all.

import { decode } from "./decode.js";
import { element } from "./dom.js";
import { headView } from "./head-view.js";
import { heatMap } from "./heat-map.js";
import { modelView } from "./model-view.js";
import { player } from "./player.js";
import { queryKeyView } from "./query-key-view.js";
import { readMaps } from "./state.js";
import { themeNow, watchTheme } from "./theme.js";

/** Show all views of a video in `root`; see `headView` for the arguments. */
export function explore(root, manifest, tensors, given, onState) {
  const shared = { maps: readMaps(manifest, tensors), poses: null };
  if (manifest.poses && tensors.poses) shared.poses = decode(manifest.poses, tensors.poses);
  const parts = [["head", "Head view", headView], ["model", "Layers × heads", modelView], ["heat", "Heat map", heatMap]];
  if (shared.poses) parts.push(["player", "Skeleton", player]);
  if (manifest.query_vectors && tensors.query_vectors) {
    for (const name of ["query_vectors", "key_vectors", "plane"]) shared[name] = tensors[name];
    parts.push(["query-key", "Queries and keys", queryKeyView]);
  }
  const views = [];
  const tell = (difference) => {
    for (const view of views) view.update(difference);
    onState(difference);
  };
  const below = element("div", { className: "beside" });
  // Rows of thumbnails that are few and long need more of the width than a map or a skeleton.
  const [rows, across] = [manifest.layers.length, manifest.heads.length];
  const share = Math.min(1.6, Math.max(1, 0.8 + across / rows / 5));
  below.style.setProperty("--columns", `${share}fr 1fr${shared.poses ? " 1fr" : ""}`);
  root.style.containerType = "inline-size";
  for (const [name, title, show] of parts) {
    const inner = element("div", { className: "tssan-view" });
    const part = element("section", { className: `part ${name}`, attributes: { "aria-label": title } });
    part.append(element("h2", {}, title), inner);
    (name === "head" ? root : below).append(part);
    views.push(show(inner, manifest, shared, given, tell));
  }
  root.append(below);
  const applyTheme = () => (root.dataset.theme = themeNow());
  applyTheme();
  const end = watchTheme(applyTheme);
  return {
    update(state) {
      for (const view of views) view.update(state);
    },
    destroy() {
      end();
      for (const view of views) view.destroy();
      root.replaceChildren();
    },
  };
}
