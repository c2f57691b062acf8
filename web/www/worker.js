// The worker: owns the wasm module, the device and the model. Requests come as {id, method, args} and are answered in order
// as {id, result} or {id, error}; what comes in between, as {id, progress}.

import init, { Runtime } from "./nanotern_web.js";

let runtime, model, training;
let queue = Promise.resolve();
const cancelled = new Set();
const running = new Set();

const methods = {
  async open(id, { backend }) {
    await init({ module_or_path: new URL("./nanotern_web_bg.wasm", import.meta.url) });
    runtime = await Runtime.open(backend);
    return { backend: runtime.backend, device: runtime.device, note: runtime.note };
  },

  async load(id, { url }) {
    const response = await fetch(url);
    if (!response.ok) throw fail("invalid_file", `${url}: ${response.status} ${response.statusText}`);
    const total = Number(response.headers.get("content-length"));
    if (!total) throw fail("invalid_file", `${url}: its server does not say how long it is`);
    return take(id, total, response.body);
  },

  async loadFile(id, { file }) {
    return take(id, file.size, file.stream());
  },

  async chat(id, { messages, sampling }) {
    return answer(id, need(model, "a model"), () => model.chat(messages, sampling));
  },

  async complete(id, { prompt, sampling }) {
    return answer(id, need(model, "a model"), () => model.complete(prompt, sampling));
  },

  async logits(id, { prompt }) {
    return need(model, "a model").logits(prompt);
  },

  async train(id, { text, config }) {
    await methods.endTraining();
    training = await runtime.train(text, config);
    return training.info;
  },

  async trainStep(id, { n }) {
    return need(training, "a training session").step(n);
  },

  async validate() {
    return need(training, "a training session").validate();
  },

  async weights(id, { name }) {
    const matrix = await need(training, "a training session").weights(name);
    const { outs, dim, codes, histogram } = matrix;
    matrix.free();
    return { outs, dim, codes, histogram };
  },

  async sample(id, { prompt, sampling }) {
    const now = await need(training, "a training session").model();
    try {
      return await answer(id, now, () => now.complete(prompt, sampling));
    } finally {
      now.free();
    }
  },

  async export() {
    const files = await need(training, "a training session").export();
    const { gguf, mhc } = files;
    files.free();
    return { gguf, mhc };
  },

  async use() {
    await methods.unload();
    model = await need(training, "a training session").model();
    return model.info;
  },

  async endTraining() {
    training?.free();
    training = undefined;
  },

  async checkShaders() {
    return runtime.checkShaders();
  },

  async selfTest() {
    return runtime.selfTest();
  },

  async unload() {
    model?.free();
    model = undefined;
  },
};

async function take(id, total, stream) {
  await methods.unload();
  const loader = runtime.load(total);
  try {
    for await (const chunk of chunks(stream)) {
      stopIf(id);
      progress(id, await loader.push(chunk));
    }
  } catch (error) {
    loader.free();
    throw error;
  }
  model = await loader.finish();
  return model.info;
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function answer(id, model, start) {
  start();
  for (;;) {
    if (cancelled.has(id)) model.cancel();
    const delta = await model.step();
    if (delta.finish_reason) return delta;
    progress(id, delta);
    await turn();
  }
}

// Lets messages in: a cancellation must be seen while the CPU computes.
const { port1, port2 } = new MessageChannel();
const turn = () => new Promise((resolve) => { port1.onmessage = resolve; port2.postMessage(0); });

function stopIf(id) {
  if (cancelled.has(id)) throw fail("cancelled", "cancelled");
}

function need(thing, what) {
  if (!thing) throw fail("invalid_request", `there must be ${what} first`);
  return thing;
}

function fail(code, message) {
  return Object.assign(new Error(message), { code });
}

const progress = (id, value) => postMessage({ id, progress: value });
const plain = (error) => ({ code: error?.code ?? "internal", message: error?.message ?? String(error) });

async function run({ id, method, args }) {
  try {
    postMessage({ id, result: await methods[method](id, args) });
  } catch (error) {
    postMessage({ id, error: plain(error) });
  }
  running.delete(id);
  cancelled.delete(id);
}

onmessage = ({ data }) => {
  if (data.cancel !== undefined) {
    if (running.has(data.cancel)) cancelled.add(data.cancel);
    return;
  }
  running.add(data.id);
  queue = queue.then(() => run(data));
};

// A panic leaves promises that never settle: all that was asked fails with it.
function crash(message) {
  for (const id of running) postMessage({ id, error: { code: "internal", message: `the module failed: ${message}` } });
  running.clear();
}
addEventListener("error", (event) => crash(event.message));
addEventListener("unhandledrejection", (event) => crash(event.reason?.message ?? event.reason));
