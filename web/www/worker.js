// The worker owns the wasm module, the device and the model. It receives { id, method, args }, sends any number of
// { id, progress }, and then { id, result } or { id, error }. It answers one request after another.

import { held, loseDevice, whenLost } from "./gpu.js";
import { fail } from "./errors.js";
import { chunks, forget, isKept, open, stopIf } from "./files.js";
import init, { Gemv, Runtime } from "./nanotern_web.js";

let wasm, runtime, model;
let training; // { id, session } of the last session
let queue = Promise.resolve();
let broken; // the answer to every call once the module has failed
const running = new Map(); // an AbortController for the id of each request

const methods = {
  async open(id, { backend }) {
    wasm = await init({ module_or_path: new URL("./nanotern_web_bg.wasm", import.meta.url) });
    runtime = await Runtime.open(backend);
    return runtime.info;
  },

  async load(id, { url, cache }, signal) {
    await methods.unload();
    const { total, chunks, kept } = await open(url, { cache, signal });
    return { ...await take(id, total, chunks, signal), kept };
  },

  async loadFile(id, { file }, signal) {
    await methods.unload();
    return take(id, file.size, chunks(file.stream(), file.name), signal);
  },

  isKept: (id, { url }) => isKept(url),
  forget: () => forget(),

  async memory() {
    return { gpu: held.bytes, buffers: held.buffers, wasm: wasm.memory.buffer.byteLength };
  },

  loseDevice: () => loseDevice(),

  async benchmark(id, { outs, dim }) {
    const kernels = { simd: new Gemv(true, outs, dim), scalar: new Gemv(false, outs, dim) };
    const [times, sums] = [{ simd: [], scalar: [] }, {}];
    for (let round = 0; round < 15; round += 1) {
      for (const [name, kernel] of Object.entries(kernels)) {
        const start = performance.now();
        sums[name] = kernel.run(10);
        times[name].push((performance.now() - start) / 10_000);
      }
    }
    if (sums.simd !== sums.scalar) throw fail("internal", `SIMD sums to ${sums.simd}, scalar to ${sums.scalar}`);
    Object.values(kernels).forEach((kernel) => kernel.free());
    const median = (list) => list.sort((a, b) => a - b)[7];
    return { simd: median(times.simd), scalar: median(times.scalar) };
  },

  async chat(id, { messages, sampling }, signal) {
    return answer(id, loaded(), () => model.chat(messages, sampling), signal);
  },

  async complete(id, { prompt, sampling }, signal) {
    return answer(id, loaded(), () => model.complete(prompt, sampling), signal);
  },

  logits: (id, { prompt }) => loaded().logits(prompt),

  async train(id, { text, config, session }) {
    training?.session.free();
    training = undefined;
    training = { id: session, session: await runtime.train(text, config) };
    return training.session.info;
  },

  trainStep: (id, { n, session }) => trained(session).step(n),
  validate: (id, { session }) => trained(session).validate(),

  async weights(id, { name, session }) {
    const matrix = await trained(session).weights(name);
    const { outs, dim, codes, histogram } = matrix;
    matrix.free();
    return { outs, dim, codes, histogram };
  },

  async sample(id, { prompt, sampling, session }, signal) {
    const now = await trained(session).model();
    try {
      return await answer(id, now, () => now.complete(prompt, sampling), signal);
    } finally {
      now.free();
    }
  },

  async export(id, { session }) {
    const files = await trained(session).export();
    const { gguf, mhc } = files;
    files.free();
    return { gguf, mhc };
  },

  async use(id, { session }) {
    const from = trained(session);
    await methods.unload();
    model = await from.model();
    return model.info;
  },

  async endTraining(id, { session }) {
    if (training?.id !== session) return;
    training.session.free();
    training = undefined;
  },

  checkShaders: () => runtime.checkShaders(),
  selfTest: () => runtime.selfTest(),

  async unload() {
    model?.free();
    model = undefined;
  },
};

async function take(id, total, chunks, signal) {
  const loader = runtime.load(total);
  try {
    for await (const chunk of chunks) {
      stopIf(signal);
      progress(id, await loader.push(chunk));
    }
  } catch (error) {
    loader.free();
    throw error;
  }
  model = await loader.finish();
  return model.info;
}

async function answer(id, model, start, signal) {
  start();
  for (;;) {
    if (signal.aborted) model.cancel();
    const delta = await model.step();
    if (delta.finish_reason) return delta;
    progress(id, delta);
    await turn();
  }
}

// Lets messages in, so that a cancellation arrives while the CPU computes.
const { port1, port2 } = new MessageChannel();
const turn = () => new Promise((resolve) => { port1.onmessage = resolve; port2.postMessage(0); });

function loaded() {
  if (!model) throw fail("invalid_request", "no model is loaded");
  return model;
}

function trained(session) {
  if (training?.id !== session) throw fail("invalid_request", "this training session has ended");
  return training.session;
}

const progress = (id, value) => postMessage({ id, progress: value });
const plain = (error) => ({ code: error?.code ?? "internal", message: error?.message ?? String(error) });

async function run({ id, method, args }) {
  try {
    postMessage({ id, result: await methods[method](id, args, running.get(id).signal) });
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) crash(error.message);
    else postMessage({ id, error: plain(error) });
  }
  running.delete(id);
}

onmessage = ({ data }) => {
  if (data.cancel !== undefined) return void running.get(data.cancel)?.abort();
  if (broken) return void postMessage({ id: data.id, error: broken });
  running.set(data.id, new AbortController());
  queue = queue.then(() => run(data));
};

// With the backend `cpu` the loss of a WebGPU device does not matter.
whenLost((message) => { if (runtime?.info.backend !== "cpu") postMessage({ lost: message }); });

// A panic leaves the module in an unknown state and promises that never settle. Every running and later request fails.
function crash(message) {
  broken = { code: "internal", message: `the module failed: ${message}` };
  for (const id of running.keys()) postMessage({ id, error: broken });
  running.clear();
}
addEventListener("error", (event) => crash(event.message));
addEventListener("unhandledrejection", (event) => crash(event.reason?.message ?? event.reason));
