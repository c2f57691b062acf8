// The worker: owns the wasm module, the device and the model. Requests come as {id, method, args} and are answered in order
// as {id, result} or {id, error}; what comes in between, as {id, progress}.

import { held, loseDevice, whenLost } from "./gpu.js";
import { fail } from "./errors.js";
import { chunks, forget, isKept, open } from "./files.js";
import init, { Gemv, Runtime } from "./nanotern_web.js";

let wasm, runtime, model, training;
let queue = Promise.resolve();
const cancelled = new Set();
const running = new Set();

const methods = {
  async open(id, { backend }) {
    wasm = await init({ module_or_path: new URL("./nanotern_web_bg.wasm", import.meta.url) });
    runtime = await Runtime.open(backend);
    return { backend: runtime.backend, device: runtime.device, note: runtime.note };
  },

  async load(id, { url, cache }) {
    await methods.unload();
    const { total, chunks, kept } = await open(url, { cache });
    return { ...await take(id, total, chunks), kept };
  },

  async loadFile(id, { file }) {
    await methods.unload();
    return take(id, file.size, chunks(file.stream(), file.name));
  },

  async isKept(id, { url }) {
    return isKept(url);
  },

  async forget() {
    await forget();
  },

  async memory() {
    return { gpu: held.bytes, buffers: held.buffers, wasm: wasm.memory.buffer.byteLength };
  },

  async loseDevice() {
    loseDevice();
  },

  async benchmark(id, { outs, dim }) {
    const kernels = { simd: new Gemv(true, outs, dim), scalar: new Gemv(false, outs, dim) };
    const times = { simd: [], scalar: [] };
    for (let round = 0; round < 15; round += 1) {
      for (const [name, kernel] of Object.entries(kernels)) {
        const start = performance.now();
        kernel.run(10);
        times[name].push((performance.now() - start) / 10_000);
      }
    }
    Object.values(kernels).forEach((kernel) => kernel.free());
    const median = (list) => list.sort((a, b) => a - b)[7];
    return { simd: median(times.simd), scalar: median(times.scalar) };
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

async function take(id, total, chunks) {
  const loader = runtime.load(total);
  try {
    for await (const chunk of chunks) {
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

const progress = (id, value) => postMessage({ id, progress: value });
const broken = (message) => ({ code: "internal", message: `the module failed: ${message}` });
const plain = (error) => error instanceof WebAssembly.RuntimeError ? broken(error.message)
  : { code: error?.code ?? "internal", message: error?.message ?? String(error) };

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

whenLost((message) => postMessage({ lost: message }));

// A panic leaves promises that never settle: all that was asked fails with it.
function crash(message) {
  for (const id of running) postMessage({ id, error: broken(message) });
  running.clear();
}
addEventListener("error", (event) => crash(event.message));
addEventListener("unhandledrejection", (event) => crash(event.reason?.message ?? event.reason));
