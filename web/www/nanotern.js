// Chat with a ternary model in the page, or train one. The interface is that of OpenAI's client; a Web Worker computes.

/** An error with a `code`. */
export class NanoternError extends Error {
  constructor({ code, message }) {
    super(message);
    this.name = "NanoternError";
    this.code = code;
  }
}

// (module (func (result v128) i32.const 0 i8x16.splat))
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

/** What this browser can do. This downloads nothing. */
export async function capabilities() {
  const simd = WebAssembly.validate(new Uint8Array(SIMD));
  const storage = (await navigator.storage?.estimate().catch(() => null))?.quota ?? null;
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    const why = navigator.gpu ? "no GPU adapter was found" : "this browser has no WebGPU";
    return { webgpu: false, adapter: null, limits: null, simd, storage, why };
  }
  const { vendor, architecture, device, description } = adapter.info;
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed GPU";
  return { webgpu: true, adapter: name, limits: { maxBufferSize, maxStorageBufferBindingSize }, simd, storage, why: null };
}

/** A worker with a device and at most one model. */
export class Nanotern {
  #worker;
  #waiting = new Map();
  #next = 1;
  #sessions = 0;
  #ended = null; // the error of every call once the worker has ended

  /** Opens `webgpu` or `cpu`; `auto` opens the better one. */
  static async open({ backend = "auto" } = {}) {
    const nanotern = new Nanotern();
    try {
      nanotern.runtime = await nanotern.#call("open", { backend });
    } catch (error) {
      nanotern.close();
      throw error;
    }
    return nanotern;
  }

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => this.#failAll(event.message || "the worker could not be started");
    this.model = null;
    this.onlost = null;
    this.chat = { completions: { create: (request) => this.#create("chat", request) } };
    this.completions = { create: (request) => this.#create("complete", request) };
  }

  /** Loads a model from a URL, a `File` or a `Blob`. `cache` keeps a file that comes from a URL. */
  async load(source, { cache = false, onProgress, signal } = {}) {
    const [method, args] = source instanceof Blob
      ? ["loadFile", { file: source }]
      : ["load", { url: absolute(source), cache }];
    this.model = null;
    this.model = await this.#call(method, args, { onProgress, signal });
    return this.model;
  }

  /** Frees the memory of the model. */
  async unload() {
    this.model = null;
    await this.#call("unload", {});
  }

  /** Whether the cache has the whole file of a URL. */
  isCached(url) {
    return this.#call("isKept", { url: absolute(url) });
  }

  /** Removes every model from the cache. */
  clearCache() {
    return this.#call("forget", {});
  }

  /** Bytes and number of the GPU's buffers, and bytes of the module's memory. */
  memory() {
    return this.#call("memory", {});
  }

  /** Destroys the device, as a crash of its driver does. For tests. */
  loseDevice() {
    return this.#call("loseDevice", {});
  }

  /** Seconds of a ternary product with a vector on one thread, with SIMD and without. */
  benchmark(outs, dim) {
    return this.#call("benchmark", { outs, dim });
  }

  /** The logits after the last token of a text. */
  logits(prompt) {
    return this.#call("logits", { prompt });
  }

  /** Prepares to train on a text. This ends an earlier session. */
  async train(text, config) {
    const session = ++this.#sessions;
    const call = (method, args = {}, options) => this.#call(method, { ...args, session }, options);
    const info = await call("train", { text, config });
    return new Training(info, call, async () => {
      this.model = null;
      return (this.model = await call("use"));
    });
  }

  /** Compiles every shader. Returns those that the browser refuses. */
  checkShaders() {
    return this.#call("checkShaders", {});
  }

  /** Compares every op of a training step with the CPU's reference. Returns those that differ. */
  selfTest() {
    return this.#call("selfTest", {});
  }

  /** Ends the worker and frees all that it holds. */
  close() {
    this.#worker.terminate();
    this.#failAll("it was closed");
  }

  async #create(method, { messages, prompt, model: _, stream = false, stream_options: __, signal, ...sampling }) {
    const start = performance.now();
    const chunks = this.#stream(method, { messages, prompt, sampling }, signal, start);
    if (stream) return chunks;
    let content = "";
    let last;
    for await (const chunk of chunks) {
      content += chunk.choices[0].delta.content ?? "";
      last = chunk;
    }
    const { finish_reason } = last.choices[0];
    const choice = { index: 0, message: { role: "assistant", content }, finish_reason };
    return { ...last, object: "chat.completion", choices: [choice] };
  }

  async *#stream(method, args, signal, start) {
    const arrived = [];
    let wake;
    const push = (item) => { arrived.push(item); wake?.(); };
    const abort = new AbortController();
    signal?.addEventListener("abort", () => abort.abort(signal.reason), { once: true });
    if (signal?.aborted) abort.abort(signal.reason);
    this.#call(method, args, { onProgress: (delta) => push({ delta }), signal: abort.signal })
      .then((delta) => push({ delta }), (error) => push({ error }));
    // A page on plain http has no randomUUID.
    const id = `chatcmpl-${crypto.getRandomValues(new BigUint64Array(1))[0].toString(16)}`;
    const created = Math.floor(Date.now() / 1000);
    let first = null;
    try {
      for (;;) {
        if (arrived.length === 0) await new Promise((resolve) => { wake = resolve; });
        const { delta, error } = arrived.shift();
        if (error) throw error;
        if (delta.completion_tokens > 0) first ??= performance.now() - start;
        if (!delta.text && !delta.finish_reason) continue;
        if (delta.finish_reason === "cancelled") signal?.throwIfAborted();
        yield chunk(id, created, delta, first, performance.now() - start);
        if (delta.finish_reason) return;
      }
    } finally {
      abort.abort(); // the caller may have left early
    }
  }

  #call(method, args, { onProgress, signal } = {}) {
    signal?.throwIfAborted();
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#next++;
    const result = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject, onProgress }));
    signal?.addEventListener("abort", () => this.#worker.postMessage({ cancel: id }), { once: true });
    this.#worker.postMessage({ id, method, args });
    return result;
  }

  #receive({ id, result, progress, error, lost }) {
    if (lost !== undefined) return void this.onlost?.(lost);
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    if (progress !== undefined) return void waiting.onProgress?.(progress);
    this.#waiting.delete(id);
    if (error) waiting.reject(new NanoternError(error));
    else waiting.resolve(result);
  }

  #failAll(message) {
    this.#ended = new NanoternError({ code: "internal", message });
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

/** A model in training. */
class Training {
  #call;

  constructor(info, call, use) {
    this.#call = call;
    this.info = info;
    this.use = use;
  }

  step(n = 1) {
    return this.#call("trainStep", { n });
  }

  validate() {
    return this.#call("validate");
  }

  weights(name) {
    return this.#call("weights", { name });
  }

  async sample(prompt, { signal, ...sampling } = {}) {
    let text = "";
    const onProgress = (delta) => { text += delta.text; };
    const last = await this.#call("sample", { prompt, sampling }, { onProgress, signal });
    return text + last.text;
  }

  export() {
    return this.#call("export");
  }

  free() {
    return this.#call("endTraining");
  }
}

const absolute = (url) => new URL(url, location.href).href;

function chunk(id, created, { text, finish_reason, prompt_tokens, completion_tokens }, first, elapsed) {
  const usage = { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
  const choices = [{ index: 0, delta: { content: text }, finish_reason }];
  const timings = { first_token_ms: first, total_ms: elapsed };
  return { id, object: "chat.completion.chunk", created, model: "nanotern", choices, usage, timings };
}
