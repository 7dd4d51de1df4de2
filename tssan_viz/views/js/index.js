// One module for all hosts, shaped as anywidget wants it: export default { render({ model, el }) }.

import { compareView } from "./compare-view.js";
import { evolutionView } from "./evolution-view.js";
import { explore } from "./explore.js";
import { headView } from "./head-view.js";
import { heatMap } from "./heat-map.js";
import { heatMaps } from "./heat-maps.js";
import { hosting } from "./host.js";
import { modelView } from "./model-view.js";
import { player } from "./player.js";
import { queryKeyView } from "./query-key-view.js";

const { render, mount } = hosting({
  head: headView, model: modelView, heat: heatMap, player, explore,
  heatmaps: heatMaps, compare: compareView, evolution: evolutionView,
  "query-key": queryKeyView,
});

export { mount };
export default { render };
