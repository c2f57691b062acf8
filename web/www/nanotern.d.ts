// Types of nanotern.js.

import type { Backend, Difference, FinishReason, LoadProgress, Message, ModelInfo, RuntimeInfo, Sampling, StepStats,
  TrainConfig, TrainInfo } from "./nanotern_web.js";

export type * from "./nanotern_web.js";

export interface Capabilities {
  webgpu: boolean;
  /** The browser's description of the GPU. */
  adapter: string | null;
  limits: { maxBufferSize: number; maxStorageBufferBindingSize: number } | null;
  /** The number of bytes that this page may store. */
  storage: number | null;
  /** WebAssembly SIMD, which the module needs. */
  simd: boolean;
  /** Why there is no WebGPU. */
  why: string | null;
}

/** What this browser can do. This downloads nothing. */
export function capabilities(): Promise<Capabilities>;

export class NanoternError extends Error {
  /** An `ErrorCode`, `cancelled`, `network` (a file did not arrive) or `internal` (the module failed: open a new `Nanotern`). */
  code: string;
}

export interface Usage { prompt_tokens: number; completion_tokens: number; total_tokens: number; }

export interface Timings { first_token_ms: number | null; total_ms: number; }

export interface Chunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: [{ index: 0; delta: { content: string }; finish_reason: FinishReason | null }];
  usage: Usage;
  timings: Timings;
}

export interface Completion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: [{ index: 0; message: { role: "assistant"; content: string }; finish_reason: FinishReason }];
  usage: Usage;
  timings: Timings;
}

export interface Request extends Sampling {
  stream?: boolean;
  signal?: AbortSignal;
}

export interface Create<T> {
  create(request: T & Request & { stream: true }): Promise<AsyncIterable<Chunk>>;
  create(request: T & Request & { stream?: false }): Promise<Completion>;
}

export interface Options<P> { onProgress?: (progress: P) => void; signal?: AbortSignal; }

export interface LoadedModel extends ModelInfo {
  /** Whether it came from the cache; absent for files. */
  kept?: boolean;
}

export interface Memory {
  /** Bytes of the buffers that WebGPU holds, and their number. */
  gpu: number;
  buffers: number;
  /** Bytes of the module's own memory. */
  wasm: number;
}

/** A matrix: its codes (outs, dim), and a histogram of its latent weights from -3 to 3 scales. */
export interface Matrix { outs: number; dim: number; codes: Int8Array; histogram: Uint32Array; }

/** A worker with a device, at most one model and one training session. It answers one call after another. */
export class Nanotern {
  static open(options?: { backend?: "auto" | Backend }): Promise<Nanotern>;
  /** The device, and the table of sampling parameters. */
  runtime: RuntimeInfo;
  /** The model that is loaded. */
  model: ModelInfo | null;
  /** `cache` keeps a file that comes from a URL, and uses it until the server has another one. */
  load(source: string | URL | Blob, options?: Options<LoadProgress> & { cache?: boolean }): Promise<LoadedModel>;
  isCached(url: string | URL): Promise<boolean>;
  clearCache(): Promise<void>;
  unload(): Promise<void>;
  chat: { completions: Create<{ messages: Message[] }> };
  completions: Create<{ prompt: string }>;
  /** The logits after the last token of a text. */
  logits(prompt: string): Promise<Float32Array>;
  /** Prepares to train on a text. This ends an earlier session. */
  train(text: string, config?: TrainConfig): Promise<Training>;
  memory(): Promise<Memory>;
  /** Called when the device is lost. Open a new `Nanotern` then. */
  onlost: ((message: string) => void) | null;
  /** Destroys the device, as a crash of its driver does. For tests. */
  loseDevice(): Promise<void>;
  /** Median seconds of a ternary product (outs, dim) with a vector on one thread, with SIMD and without. */
  benchmark(outs: number, dim: number): Promise<{ simd: number; scalar: number }>;
  checkShaders(): Promise<{ op: string; message: string }[]>;
  selfTest(): Promise<Difference[]>;
  /** Ends the worker and frees all that it holds. */
  close(): void;
}

export class Training {
  info: TrainInfo;
  /** Trains `n` steps, or those that are left. To pause, do not call it. */
  step(n?: number): Promise<StepStats[]>;
  /** The loss on the validation text, in nats per token. */
  validate(): Promise<number>;
  weights(name: string): Promise<Matrix>;
  /** Completes a text with the weights as they are now. */
  sample(prompt: string, request?: Request): Promise<string>;
  /** The files of the model, for the native program too: `nanotern chat --model model.gguf`. */
  export(): Promise<{ gguf: Uint8Array; mhc?: Uint8Array }>;
  /** Makes the weights as they are now the model of `chat` and `completions`. */
  use(): Promise<ModelInfo>;
  free(): Promise<void>;
}
