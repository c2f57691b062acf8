// The settings form: a field for each number in the table of sampling parameters, and the system prompt.

import { $, element, load, save } from "./dom.js";

const KEY = "nanotern.settings";
const form = $("settings");
const system = element("textarea", { name: "system", rows: 2, placeholder: "none" });
form.append(element("label", { className: "wide" }, "System prompt ", system));
let parameters = []; // inputs
let kept = load(KEY, {}); // values by name

/** Makes the fields from the rows of the table: { name, kind, limits, default, help }. Later calls change nothing. */
export function setParameters(rows) {
  if (parameters.length) return;
  const numbers = rows.filter(({ kind }) => kind === "number" || kind === "integer");
  parameters = numbers.map(({ name, kind, limits, default: value }) => element("input", {
    name,
    type: "number",
    step: kind === "number" ? 0.01 : 1,
    placeholder: value ?? (limits ? "as many as fit" : "random"),
    ...(limits && { min: limits[0], max: limits[1] }),
  }));
  // "top_p" becomes "Top-p", "max_tokens" becomes "Max tokens".
  const title = (name) => name[0].toUpperCase() + name.slice(1).replace(/_(?=.$)/, "-").replaceAll("_", " ");
  form.prepend(...parameters.map((input, i) => element("label", { title: numbers[i].help }, `${title(input.name)} `, input)));
  restore();
}

/** The parameters that the user has set. The others are left to the server or the module. */
export function sampling() {
  const set = parameters.filter(({ value }) => value.trim() !== "");
  return Object.fromEntries(set.map(({ name, value }) => [name, Number(value)]));
}

export const systemPrompt = () => system.value.trim();

/** Replaces all settings by the given values. */
export function fill(values) {
  kept = values;
  save(KEY, kept);
  restore();
}

export function showSettings(yes) {
  form.hidden = !yes;
  $("toggle").setAttribute("aria-expanded", String(yes));
}

/** Whether every field has a possible value; shows one that has not. */
export function checkSettings() {
  if (form.checkValidity()) return true;
  showSettings(true);
  return form.reportValidity();
}

function restore() {
  for (const field of [...parameters, system]) field.value = kept[field.name] ?? "";
}

form.addEventListener("input", ({ target }) => {
  if (!target.name) return;
  kept = { ...kept, [target.name]: target.value };
  save(KEY, kept);
});
form.addEventListener("submit", (event) => event.preventDefault());
$("toggle").addEventListener("click", () => showSettings(form.hidden));
restore();
