// The chat page of a server: answers come from its API.

import { say, startChat } from "./chat.js";
import { $ } from "./dom.js";
import { setParameters } from "./settings.js";

const LOST = "The connection to the server was lost. Is it still running?"; // where fetch throws a TypeError

// The values of the `data:` lines of a response, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

async function problem(response) {
  try { return (await response.json()).error.message; } catch { return `The server answered ${response.status}.`; }
}

async function* chunks(body, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw new Error(await problem(response));
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
  throw new TypeError("the stream broke off");
}

startChat(async function* (body, signal) {
  try { yield* chunks(body, signal); } catch (error) { throw error instanceof TypeError ? new Error(LOST) : error; }
});
$("text").focus();

const get = async (path) => (await fetch(path)).json();
try {
  const [parameters, { data: [model] }] = await Promise.all([get("/sampling.json"), get("/v1/models")]);
  setParameters(parameters);
  $("model").textContent = model.id;
  $("model").title = `${model.context_length} tokens of context`;
  document.title = `${model.id} - nanotern`;
} catch {
  say("The server does not answer.");
}
