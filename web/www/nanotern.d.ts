// Types of nanotern.js.

import type { Backend, Difference, FinishReason, LoadProgress, Message, ModelInfo, Sampling, StepStats, TrainConfig,
  TrainInfo } from "./nanotern_web.js";

export type * from "./nanotern_web.js";

export interface Capabilities {
  webgpu: boolean;
  /** What the browser says of the GPU. */
  adapter: string | null;
  limits: { maxBufferSize: number; maxStorageBufferBindingSize: number } | null;
  /** Bytes that this page may store. */
  storage: number | null;
  /** WebAssembly SIMD, which the module needs. */
  simd: boolean;
  /** Why there is no WebGPU. */
  why: string | null;
}

/** What this browser can do. Nothing is downloaded for it. */
export function capabilities(): Promise<Capabilities>;

export class NanoternError extends Error {
  /** An `ErrorCode`; `cancelled`; `network`: a file did not come; or `internal`: the module failed, and only a new `Nanotern` helps. */
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

export interface Request extends Omit<Sampling, "stop"> {
  stop?: string | string[];
  stream?: boolean;
  signal?: AbortSignal;
}

export interface Create<T> {
  create(request: T & Request & { stream: true }): Promise<AsyncIterable<Chunk>>;
  create(request: T & Request & { stream?: false }): Promise<Completion>;
}

export interface Options<P> { onProgress?: (progress: P) => void; signal?: AbortSignal; }

export interface LoadedModel extends ModelInfo {
  /** It came from the cache; absent for files. */
  kept?: boolean;
}

export interface Memory {
  /** Bytes of the buffers that WebGPU holds, and their number. */
  gpu: number;
  buffers: number;
  /** Bytes of the module's own memory. */
  wasm: number;
}

/** A matrix as it stands: codes (outs, dim), and classes of latent weights from -3 to 3 scales. */
export interface Matrix { outs: number; dim: number; codes: Int8Array; histogram: Uint32Array; }

/** A worker with a device, at most one model and one training session on it. Calls are answered in order. */
export class Nanotern {
  static open(options?: { backend?: "auto" | Backend }): Promise<Nanotern>;
  /** What was opened; `note` says why `auto` did not take WebGPU. */
  runtime: { backend: Backend; device: string; note?: string };
  /** The model that is loaded. */
  model: ModelInfo | null;
  /** `cache` keeps a file that comes from a URL, and takes it from there while the server has no other. */
  load(source: string | URL | Blob, options?: Options<LoadProgress> & { cache?: boolean }): Promise<LoadedModel>;
  isCached(url: string | URL): Promise<boolean>;
  clearCache(): Promise<void>;
  unload(): Promise<void>;
  chat: { completions: Create<{ messages: Message[] }> };
  completions: Create<{ prompt: string }>;
  /** Logits after the last token of a text. */
  logits(prompt: string): Promise<Float32Array>;
  /** Prepares to train on a text; an earlier session ends. */
  train(text: string, config?: TrainConfig): Promise<Training>;
  memory(): Promise<Memory>;
  /** Called when the device is lost: nothing but a new `Nanotern` helps. */
  onlost: ((message: string) => void) | null;
  /** Loses the device, as a crash of its driver does: for tests. */
  loseDevice(): Promise<void>;
  /** Median seconds of a ternary product (outs, dim) with a vector on one thread, in turns. */
  benchmark(outs: number, dim: number): Promise<{ simd: number; scalar: number }>;
  checkShaders(): Promise<{ op: string; message: string }[]>;
  selfTest(): Promise<Difference[]>;
  /** Ends the worker and all that it holds. */
  close(): void;
}

export class Training {
  info: TrainInfo;
  /** Trains `n` steps, at most to the last. Pausing is not calling it. */
  step(n?: number): Promise<StepStats[]>;
  /** Loss of the held-back text, in nats per token. */
  validate(): Promise<number>;
  weights(name: string): Promise<Matrix>;
  /** Goes on from a text with the weights as they stand. */
  sample(prompt: string, request?: Request): Promise<string>;
  /** Files that the native program reads: `nanotern chat --model model.gguf`. */
  export(): Promise<{ gguf: Uint8Array; mhc?: Uint8Array }>;
  /** The weights as they stand become the model that `chat` talks to. */
  use(): Promise<ModelInfo>;
  free(): Promise<void>;
}
