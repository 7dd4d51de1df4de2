// Elements without markup: whatever comes from data ends up in text nodes.

/** An element with properties (and attributes under `attributes`) and children (nodes or text). */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Size a canvas in CSS pixels for the screen's resolution; returns a context that counts in them. */
export function sizeCanvas(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3, 16000 / Math.max(width, height, 1));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Run `draw` at most once per painted frame. */
export function oncePerFrame(draw) {
  let request = 0;
  const schedule = () => {
    request ||= requestAnimationFrame(() => {
      request = 0;
      draw();
    });
  };
  schedule.cancel = () => {
    cancelAnimationFrame(request);
    request = 0;
  };
  return schedule;
}

/** Call `changed(width)` now and when the width of `node` changes to another one above zero. */
export function watchWidth(node, changed) {
  let last = 0;
  const look = (found) => {
    const width = Math.floor(found);
    if (width > 0 && width !== last) changed((last = width));
  };
  const observer = new ResizeObserver(([entry]) => look(entry.contentRect.width));
  observer.observe(node);
  // The observer first speaks after a frame has been painted, and that one would be empty.
  const style = getComputedStyle(node);
  look(node.clientWidth - parseFloat(style.paddingLeft || 0) - parseFloat(style.paddingRight || 0));
  return () => observer.disconnect();
}
