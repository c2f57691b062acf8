"use strict";
// A conversation in a page, of a server or of the browser demo, which say where answers come from: startChat. What the
// model writes becomes text nodes (markdown.js), never HTML.

const $ = (id) => document.getElementById(id);
const [log, text, send, stop, status, settings] = ["log", "text", "send", "stop", "status", "settings"].map($);
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];

const load = (key, otherwise) => {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
};
const save = (key, value) => {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { say("This browser does not keep the conversation."); }
};

const isMessage = (m) => ["user", "assistant"].includes(m?.role) && typeof m.content === "string";

// Messages: {role, content, note, speed}.
let chat = load("nanotern.chat", []);
if (!Array.isArray(chat) || !chat.every(isMessage)) chat = [];
let running = null; // AbortController of the answer that comes.
let complete = null; // (body of a request, AbortSignal) => chunks as OpenAI streams them.

function startChat(answers) {
  complete = answers;
}

const say = (line) => { status.textContent = line; };

function element(tag, name, content) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (content !== undefined) made.textContent = content;
  return made;
}

function button(label, title, action) {
  const made = element("button", "", label);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", action);
  return made;
}

function body(message) {
  if (message.role === "user") return element("div", "body", message.content);
  const made = element("div", "body");
  made.append(markdown(message.content));
  return made;
}

function view(message, i) {
  const box = element("article", `message ${message.role}`);
  box.append(element("p", "who", message.role === "user" ? "You" : "Model"), body(message));
  if (message.note) box.append(element("p", "note", message.note));
  if (!running) {
    const tools = element("div", "tools");
    const last = i === chat.length - 1;
    const lastUser = message.role === "user" && i >= chat.length - 2;
    if (lastUser) tools.append(button("Edit", "Edit this message and ask again", () => edit(i)));
    if (last) tools.append(button(message.role === "user" ? "Answer" : "Regenerate", "Ask for another answer", regenerate));
    if (message.role === "assistant" && message.content) tools.append(button("Copy", "Copy this answer", () => copy(message.content)));
    if (message.speed) tools.append(element("span", "speed", message.speed));
    if (tools.childNodes.length) box.append(tools);
  } else if (i === chat.length - 1) {
    box.classList.add("running");
  }
  return box;
}

function show() {
  log.replaceChildren(...chat.map(view));
  if (!chat.length) log.append(element("p", "empty", "Nothing has been said yet. The conversation stays in this browser."));
  log.setAttribute("aria-busy", String(Boolean(running)));
  send.hidden = Boolean(running);
  stop.hidden = !running;
  log.scrollTop = log.scrollHeight;
}

function copy(content) {
  navigator.clipboard.writeText(content).then(() => say("Copied."), () => say("The browser did not allow copying."));
}

// Fields left empty are not sent: the server has its own values.
function request() {
  const body = { stream: true, stream_options: { include_usage: true }, messages: [] };
  for (const name of NUMBERS) {
    const value = settings.elements[name].value.trim();
    if (value !== "") body[name] = Number(value);
  }
  const system = settings.elements.system.value.trim();
  if (system) body.messages.push({ role: "system", content: system });
  const said = chat.filter((m, i) => m.content !== "" || i < chat.length - 1);
  body.messages.push(...said.map(({ role, content }) => ({ role, content })));
  return body;
}

async function answer() {
  const body = request();
  const message = { role: "assistant", content: "" };
  chat.push(message);
  running = new AbortController();
  show();
  say("Waiting for the first token");
  const begun = performance.now();
  let first = 0, tokens = 0, finish = "";
  const node = log.lastElementChild.querySelector(".body");
  let drawing = false; // The text is drawn with the next frame, however many tokens it brings.
  const draw = () => {
    drawing = false;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    node.replaceChildren(markdown(message.content));
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  const speed = () => {
    const seconds = (performance.now() - first) / 1000;
    const rate = tokens > 1 && seconds > 0 ? `${((tokens - 1) / seconds).toFixed(1)} tok/s, ` : "";
    return first ? `${rate}first token after ${Math.round(first - begun)} ms` : "";
  };
  try {
    for await (const chunk of complete(body, running.signal)) {
      const choice = chunk.choices[0];
      const more = choice?.delta.content;
      finish = choice?.finish_reason ?? finish;
      tokens = chunk.usage?.completion_tokens ?? tokens + Boolean(more);
      if (!more) continue;
      if (!first) { first = performance.now(); say("Answering"); }
      message.content += more;
      if (!drawing) requestAnimationFrame(draw);
      drawing = true;
    }
    message.speed = speed();
    say(finish === "length" ? "Ended at the limit of tokens." : "Done.");
  } catch (error) {
    message.speed = speed();
    if (error.name === "AbortError") say("Stopped.");
    else { message.note = error.message; say("No (whole) answer came."); }
  }
  running = null;
  if (!message.content && !message.note) message.note = "The answer is empty.";
  save("nanotern.chat", chat);
  show();
  text.focus();
}

function regenerate() {
  if (running) return;
  if (chat.at(-1)?.role === "assistant") chat.pop();
  if (chat.length) answer();
}

// The conversation as the body of a request: what a file holds, and what another client can send.
function saveFile() {
  const { stream, stream_options, ...body } = request();
  const link = element("a");
  link.download = "conversation.json";
  link.href = URL.createObjectURL(new Blob([JSON.stringify(body, null, 2)], { type: "application/json" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say("Saved as conversation.json.");
}

async function openFile(file) {
  let body;
  try { body = JSON.parse(await file.text()); } catch { body = null; }
  const said = Array.isArray(body?.messages) ? [...body.messages] : [null];
  const system = said[0]?.role === "system" && typeof said[0].content === "string" ? said.shift().content : "";
  if (!said.every(isMessage)) { say(`${file.name} holds no conversation.`); return; }
  running?.abort();
  chat = said.map(({ role, content }) => ({ role, content }));
  for (const name of NUMBERS) settings.elements[name].value = body[name] ?? "";
  settings.elements.system.value = system;
  keepSettings();
  save("nanotern.chat", chat);
  say(`Opened ${file.name}.`);
  show();
}

function edit(i) {
  if (running) return;
  text.value = chat[i].content;
  chat.length = i;
  save("nanotern.chat", chat);
  show();
  grow();
  text.focus();
}

function ask() {
  const content = text.value.trim();
  if (!content || running || send.disabled) return;
  if (!settings.reportValidity()) { open(true); return; }
  chat = chat.filter((m) => m.role === "user" || m.content !== "");
  chat.push({ role: "user", content });
  text.value = "";
  grow();
  save("nanotern.chat", chat);
  answer();
}

function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function open(yes) {
  settings.hidden = !yes;
  $("toggle").setAttribute("aria-expanded", String(yes));
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
settings.addEventListener("submit", (event) => event.preventDefault());
text.addEventListener("input", grow);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) running.abort();
  else if (!settings.hidden) { open(false); $("toggle").focus(); }
});
stop.addEventListener("click", () => running?.abort());
$("toggle").addEventListener("click", () => open(settings.hidden));
$("new").addEventListener("click", () => {
  running?.abort();
  chat = [];
  save("nanotern.chat", chat);
  say("");
  show();
  text.focus();
});
const keepSettings = () => save("nanotern.settings", Object.fromEntries(new FormData(settings)));
settings.addEventListener("input", keepSettings);
$("save").addEventListener("click", saveFile);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) openFile(file);
  $("file").value = "";
});

for (const [name, value] of Object.entries(load("nanotern.settings", {}))) {
  if (settings.elements[name]) settings.elements[name].value = value;
}
show();
