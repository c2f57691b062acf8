// A conversation in a page. The page says where answers come from: startChat. What the model writes becomes text nodes
// (markdown.js), never HTML.

import { $, button, download, element, load, save } from "./dom.js";
import { markdown } from "./markdown.js";
import { checkSettings, fill, sampling, showSettings, systemPrompt } from "./settings.js";

const KEY = "nanotern.chat";
const [log, status] = ["log", "status"].map($);
const text = element("textarea", { id: "text", rows: 1, ariaLabel: "Message", placeholder: "Write a message" });
const send = element("button", { id: "send", type: "submit" }, "Send");
const stop = element("button", { id: "stop", type: "button", hidden: true }, "Stop");
const file = element("input", { id: "file", type: "file", accept: ".json,application/json", ariaLabel: "Conversation file",
  hidden: true });

const isMessage = (m) => ["user", "assistant"].includes(m?.role) && typeof m.content === "string";

// Messages: { role, content, note, speed }.
let chat = load(KEY, []);
if (!Array.isArray(chat) || !chat.every(isMessage)) chat = [];
let running = null; // the AbortController of the answer that is coming
let complete = null;

/** `answers` takes the body of a request and an AbortSignal, and yields chunks as OpenAI's API streams them. */
export function startChat(answers) {
  complete = answers;
}

/** Shows a line above the message field. */
export function say(line) {
  status.textContent = line;
}

function keep() {
  if (!save(KEY, chat)) say("This browser does not keep the conversation.");
}

function view(message, i) {
  const user = message.role === "user";
  const body = element("div", { className: "body" }, user ? message.content : markdown(message.content));
  const box = element("article", { className: `message ${message.role}` },
    element("p", { className: "who" }, user ? "You" : "Model"), body);
  if (message.note) box.append(element("p", { className: "note" }, message.note));
  const last = i === chat.length - 1;
  if (running) {
    box.classList.toggle("running", last);
    return box;
  }
  const tools = element("div", { className: "tools" });
  if (user && i >= chat.length - 2) tools.append(button("Edit", "Edit this message and ask again", () => edit(i)));
  if (last) tools.append(button(user ? "Answer" : "Regenerate", "Ask for another answer", regenerate));
  if (!user && message.content) tools.append(button("Copy", "Copy this answer", () => copy(message.content)));
  if (message.speed) tools.append(element("span", { className: "speed" }, message.speed));
  if (tools.childNodes.length) box.append(tools);
  return box;
}

function show() {
  log.replaceChildren(...chat.map(view));
  if (!chat.length) {
    log.append(element("p", { className: "empty" }, "Nothing has been said yet. The conversation stays in this browser."));
  }
  log.setAttribute("aria-busy", String(Boolean(running)));
  send.hidden = Boolean(running);
  stop.hidden = !running;
  log.scrollTop = log.scrollHeight;
}

function copy(content) {
  navigator.clipboard.writeText(content).then(() => say("Copied."), () => say("The browser did not allow copying."));
}

/** The conversation as the body of a request. */
function request() {
  const system = systemPrompt();
  const said = chat.filter((m, i) => m.content !== "" || i < chat.length - 1);
  const messages = said.map(({ role, content }) => ({ role, content }));
  if (system) messages.unshift({ role: "system", content: system });
  return { ...sampling(), messages };
}

async function answer() {
  const body = { stream: true, stream_options: { include_usage: true }, ...request() };
  const message = { role: "assistant", content: "" };
  chat.push(message);
  running = new AbortController();
  show();
  say("Waiting for the first token");
  const begun = performance.now();
  let first = 0, tokens = 0, finish = "";
  const node = log.lastElementChild.querySelector(".body");
  let drawing = false; // The text is drawn once a frame, however many tokens come in between.
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
    say(finish === "length" ? "Ended at the limit of tokens." : "Done.");
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else { message.note = error.message; say("The answer did not come, or not all of it."); }
  }
  message.speed = speed();
  running = null;
  if (!message.content && !message.note) message.note = "The answer is empty.";
  keep();
  show();
  text.focus();
}

function regenerate() {
  if (running) return;
  if (chat.at(-1)?.role === "assistant") chat.pop();
  if (chat.length) answer();
}

// The file is the body of a request, which another client can send.
function saveFile() {
  download("conversation.json", JSON.stringify(request(), null, 2), "application/json");
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
  const { messages, ...settings } = body;
  fill({ ...settings, system });
  say(`Opened ${file.name}.`);
  keep();
  show();
}

function edit(i) {
  if (running) return;
  text.value = chat[i].content;
  chat.length = i;
  keep();
  show();
  grow();
  text.focus();
}

function ask() {
  const content = text.value.trim();
  if (!content || running || send.disabled || !checkSettings()) return;
  chat = chat.filter((m) => m.role === "user" || m.content !== "");
  chat.push({ role: "user", content });
  text.value = "";
  grow();
  keep();
  answer();
}

function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

$("ask").append(text, send, stop);
$("settings").append(element("div", { className: "wide files" },
  Object.assign(button("Save conversation", "Saves a file that another client can send", saveFile), { id: "save" }),
  Object.assign(button("Open conversation", "Opens a saved conversation", () => file.click()), { id: "open" }), file));

$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
text.addEventListener("input", grow);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) running.abort();
  else if (!$("settings").hidden) { showSettings(false); $("toggle").focus(); }
});
stop.addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => {
  running?.abort();
  chat = [];
  keep();
  say("");
  show();
  text.focus();
});
file.addEventListener("change", () => {
  if (file.files[0]) openFile(file.files[0]);
  file.value = "";
});
show();
