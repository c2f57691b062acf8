// The demo: its device, its model and its errors. The conversation is chat.js, as on the page of a server.

import { say, startChat } from "./chat.js";
import { $, load, save } from "./dom.js";
import { Nanotern, capabilities } from "./nanotern.js";
import { setParameters } from "./settings.js";
import { setUpTraining } from "./train.js";

const DEFAULT = "model.gguf";
const GOES_ON = "It does not know conversations: it continues your text.";

let nanotern = null;
let source = null; // the address or the file of the model
let goesOn = false; // whether the model continues a text, and knows no conversations
let loading = null; // the AbortController of a load
let begun = 0; // number of calls of begin

const MiB = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 1e8 ? 1 : 0)} MiB`;
const million = (n) => `${(n / 1e6).toFixed(n < 1e7 ? 2 : 0)} M`;

// --- the device

async function begin() {
  const mine = ++begun;
  nanotern?.close();
  nanotern = null;
  training.reset();
  showModel();
  const wanted = $("backend").value;
  try {
    const found = await capabilities();
    $("path").textContent = found.webgpu ? `There is WebGPU: ${found.adapter}` : `No WebGPU: ${found.why}`;
    if (!found.simd) throw new Error("This browser has no WebAssembly SIMD, which this page needs.");
    const opened = await Nanotern.open({ backend: wanted });
    if (mine !== begun) return opened.close();
    const { backend, note, parameters } = opened.runtime;
    setParameters(parameters);
    const path = backend === "webgpu" ? `WebGPU: ${found.adapter}` : "CPU (SIMD)";
    const why = backend === "cpu" && wanted === "auto" ? `; ${found.why ?? note}` : "";
    $("path").textContent = path + why;
    document.body.dataset.backend = backend;
    opened.onlost = (message) => failed({ code: "device_lost", message });
    nanotern = opened;
    training.ready();
  } catch (error) {
    if (mine === begun) failed(error);
  }
  showModel();
}

const ENDS = {
  device_lost: (message) => `The GPU was lost (${message}), and the model with it. Start again to load the model again.`,
  internal: (message) =>
    `The program in this page failed (${message}). It probably ran out of memory: start again with a smaller model.`,
};

// Shows an error. After one that ends the module or the device, the user can start again.
function failed(error) {
  if (error.code === "cancelled" || error.name === "AbortError") return;
  const end = ENDS[error.code];
  if (end && !nanotern) return; // it was shown before
  $("alert").hidden = false;
  $("alert").firstElementChild.textContent = end ? end(error.message) : error.message;
  $("again").hidden = !end && Boolean(nanotern);
  if (!end) return;
  nanotern?.close();
  nanotern = null;
  training.reset();
  showModel();
}

function dismiss() {
  $("alert").hidden = true;
}

// --- the model

function showModel() {
  const model = nanotern?.model;
  $("size").textContent = model ? million(model.parameters) : "";
  $("model").title = model ? `${model.context} tokens of context, ${model.device}` : "";
  document.title = model ? `${million(model.parameters)} parameters - nanotern` : "nanotern";
  $("loader").hidden = Boolean(model);
  $("change").hidden = !model;
  $("send").disabled = !model;
  $("log").hidden = !model && !$("log").querySelector(".message");
  for (const control of document.querySelectorAll("#default, #pick, #from-url button")) {
    control.disabled = !nanotern || Boolean(loading);
  }
  showNumbers();
}

async function loadModel(from) {
  if (!nanotern || loading) return;
  dismiss();
  loading = new AbortController();
  const on = nanotern;
  source = from;
  goesOn = false;
  const onProgress = ({ received, total, parameters }) => {
    const bar = $("progress").firstElementChild;
    if (total) bar.value = received / total;
    else bar.removeAttribute("value");
    const what = parameters ? `, ${million(parameters)} parameters` : "";
    $("received").textContent = `${MiB(received)}${total ? ` of ${MiB(total)}` : ""}${what}`;
  };
  onProgress({ received: 0, total: 1 });
  $("received").textContent = "Waiting for the server";
  $("progress").hidden = false;
  nanotern.model = null;
  showModel();
  try {
    const model = await nanotern.load(from, { cache: true, onProgress, signal: loading.signal });
    goesOn = !model.chat;
    const where = model.kept ? " from this browser's cache" : "";
    say(`Loaded ${million(model.parameters)} parameters${where}. ${goesOn ? GOES_ON : ""}`);
    $("text").focus();
  } catch (error) {
    if (nanotern === on) source = null; // on another device it is loaded again
    const name = from.name ?? from;
    failed(error.code === "invalid_file" ? new Error(`${name} is not a (whole) model file: ${error.message}`) : error);
  }
  loading = null;
  $("progress").hidden = true;
  showModel();
}

async function showNumbers(used = 0) {
  const model = nanotern?.model;
  if (!model) { $("numbers").textContent = ""; return; }
  const { gpu, wasm } = await nanotern.memory().catch(() => ({}));
  if (wasm === undefined || nanotern?.model !== model) return; // the model has changed
  const memory = model.backend === "webgpu" ? `${MiB(gpu)} of GPU memory` : `${MiB(wasm)} of memory`;
  const work = model.backend === "webgpu" ? "dispatches" : "ops";
  $("numbers").textContent = [`${model.dispatches_per_token} ${work} a token`, memory,
    `${used} of ${model.context} tokens of context`].join(" \u00b7 ");
}

// Makes the model that was trained here answer from now on.
function chatWith(model) {
  source = null;
  goesOn = true;
  showPart("chat");
  showModel();
  say(`${million(model.parameters)} parameters, trained here. ${GOES_ON}`);
  $("text").focus();
}

// --- answers

startChat(async function* (body, signal) {
  if (!nanotern?.model) throw new Error("No model is loaded.");
  const { messages, ...sampling } = { ...body, signal };
  try {
    const chunks = goesOn
      ? await nanotern.completions.create({ ...sampling, prompt: messages.at(-1).content })
      : await nanotern.chat.completions.create({ ...sampling, messages });
    let used = 0;
    for await (const chunk of chunks) {
      used = chunk.usage.total_tokens;
      yield chunk;
    }
    showNumbers(used);
  } catch (error) {
    if (ENDS[error.code]) failed(error);
    throw error;
  }
});

// --- the page

function showPart(part) {
  for (const name of ["chat", "train"]) {
    $(name).hidden = name !== part;
    if (name === part) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  for (const control of document.querySelectorAll(".for-chat")) control.classList.toggle("elsewhere", part !== "chat");
}

const training = setUpTraining({ device: () => nanotern, failed, dismiss, chatWith });

$("to-chat").addEventListener("click", () => showPart("chat"));
$("to-train").addEventListener("click", () => showPart("train"));
$("default").addEventListener("click", () => loadModel(DEFAULT));
$("pick").addEventListener("click", () => $("gguf").click());
$("gguf").addEventListener("change", () => {
  const [file] = $("gguf").files;
  if (file) loadModel(file);
  $("gguf").value = "";
});
$("from-url").addEventListener("submit", (event) => {
  event.preventDefault();
  loadModel($("url").value);
});
$("cancel").addEventListener("click", () => loading?.abort());
$("change").addEventListener("click", () => {
  $("loader").hidden = !$("loader").hidden;
});
$("forget").addEventListener("click", async () => {
  if (!nanotern) return;
  await nanotern.clearCache();
  say("The cache is empty.");
});
$("dismiss").addEventListener("click", dismiss);
$("again").addEventListener("click", async () => {
  dismiss();
  await begin();
  if (source) await loadModel(source);
});
$("backend").addEventListener("change", async () => {
  save("nanotern.backend", $("backend").value);
  dismiss();
  await begin();
  if (source) await loadModel(source);
});
const hasFiles = (event) => event.dataTransfer.types.includes("Files"); // a user can also drag text into a field
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("drop");
});
addEventListener("dragleave", () => document.body.classList.remove("drop"));
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("drop");
  const [file] = event.dataTransfer.files;
  if (!file) return;
  showPart("chat");
  loadModel(file);
});

$("backend").value = load("nanotern.backend", "auto");
await begin();
document.body.dataset.ready = Math.round(performance.now());
const size = await fetch(DEFAULT, { method: "HEAD" }).then((r) => Number(r.ok && r.headers.get("content-length")), () => 0);
if (size) $("default").textContent += ` (${MiB(size)})`;
if (nanotern && !nanotern.model && await nanotern.isCached(DEFAULT)) await loadModel(DEFAULT);
