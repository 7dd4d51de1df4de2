// What every view does for its host: follow theme and width, paint once per frame, leave nothing behind.

import { oncePerFrame, watchWidth } from "./dom.js";
import { themeNow, watchTheme } from "./theme.js";

/** @returns {{redraw: () => void, destroy: () => void}}; `draw(width)` waits until there is a width */
export function paintedIn(root, stage, draw) {
  let width = 0;
  const redraw = oncePerFrame(() => width && draw(width));
  const applyTheme = () => {
    root.dataset.theme = themeNow();
    redraw();
  };
  const endings = [
    watchTheme(applyTheme),
    watchWidth(stage, (now) => {
      width = now;
      redraw();
    }),
    redraw.cancel,
  ];
  applyTheme();
  return {
    redraw,
    destroy() {
      for (const end of endings) end();
      root.replaceChildren();
    },
  };
}
