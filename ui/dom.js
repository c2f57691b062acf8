// Elements, files to save, and values that the browser keeps.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children. Strings become text, never HTML. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A button that calls `action`. */
export function button(label, title, action) {
  const made = element("button", { type: "button", title }, label);
  made.addEventListener("click", action);
  return made;
}

/** Lets the user save a file. */
export function download(name, content, type) {
  const href = URL.createObjectURL(new Blob([content], { type }));
  element("a", { download: name, href }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

/** A value that the browser keeps, or `otherwise`. */
export function load(key, otherwise) {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
}

/** Keeps a value. Returns false if the browser does not allow that. */
export function save(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { return false; }
  return true;
}
