// The little of anywidget's model that a page without a host needs.

/** @returns {{get, set, save_changes, on, off}} */
export function createModel(values) {
  const held = { ...values };
  const listeners = new Map();
  return {
    get: (key) => held[key],
    set(key, value) {
      held[key] = value;
      for (const listener of [...(listeners.get(`change:${key}`) ?? [])]) listener();
    },
    save_changes() {},
    on(event, listener) {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
    },
    off(event, listener) {
      listeners.get(event)?.delete(listener);
    },
  };
}
