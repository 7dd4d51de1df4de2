// Light or dark, as the host has it, and the colours that follow from it.

/** "light" or "dark": what the notebook, the editor, the dashboard or else the system says. */
export function themeNow(doc = document) {
  const { body, documentElement: page } = doc;
  const jupyter = body.dataset.jpThemeLight;
  if (jupyter) return jupyter === "false" ? "dark" : "light";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) {
    return "dark";
  }
  if (body.classList.contains("vscode-light")) return "light";
  const mantine = page.dataset.mantineColorScheme;
  if (mantine === "dark" || mantine === "light") return mantine;
  const told = page.dataset.theme ?? body.dataset.theme;
  if (told === "dark" || told === "light") return told;
  return doc.defaultView.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Call `changed` whenever the theme may have changed; returns what ends the watch. */
export function watchTheme(changed) {
  const observer = new MutationObserver(changed);
  const options = {
    attributes: true,
    attributeFilter: ["class", "data-theme", "data-mantine-color-scheme", "data-jp-theme-light"],
  };
  observer.observe(document.documentElement, options);
  observer.observe(document.body, options);
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", changed);
  return () => {
    observer.disconnect();
    system.removeEventListener("change", changed);
  };
}

/** The colour variables of the view's style sheet, resolved. */
export function inks(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    ink: read("--tssan-ink"),
    muted: read("--tssan-muted"),
    line: read("--tssan-line"),
    panel: read("--tssan-panel"),
    accent: read("--tssan-accent"),
    paper: read("--tssan-paper"),
    font: style.fontFamily,
  };
}
