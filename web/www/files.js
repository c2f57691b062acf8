// Model files from the network or from the browser's cache. The cache keeps a file once all of it has arrived.

import { fail } from "./errors.js";

const CACHE = "nanotern-models";
const VERSION = ["etag", "last-modified", "content-length", "content-encoding"];

// A page has no cache if it is not secure or if the browser lets it store nothing.
const store = async () => globalThis.caches?.open(CACHE).catch(() => undefined);

/** Whether the cache has a file. */
export async function isKept(url) {
  return Boolean(await (await store())?.match(url));
}

/** Empties the cache. */
export async function forget() {
  await globalThis.caches?.delete(CACHE).catch(() => undefined);
}

/** Opens a file: its chunks, its length in bytes if that is known, and whether it comes from the cache. */
export async function open(url, { cache, signal }) {
  const models = cache ? await store() : undefined;
  const kept = await models?.match(url);
  if (kept && await isCurrent(url, kept, signal)) return { total: length(kept), chunks: chunks(kept.body, url), kept: true };
  const response = await reach(url, signal);
  const total = length(response);
  const all = chunks(response.body, url, signal);
  return { total, chunks: models ? keep(models, url, response.headers, all) : all, kept: false };
}

// Whether the file in the cache is the one that the server has. It counts as current while the server cannot be reached.
async function isCurrent(url, kept, signal) {
  const now = await fetch(url, { method: "HEAD", signal }).catch(() => null);
  return !now?.ok || VERSION.every((name) => now.headers.get(name) === kept.headers.get(name));
}

async function reach(url, signal) {
  const response = await fetch(url, { signal }).catch(() => {
    stopIf(signal);
    const why = "is this computer offline, or does that server forbid other pages to read it?";
    throw fail("network", `${url} cannot be reached: ${why}`);
  });
  if (!response.ok) throw fail("network", `${url}: the server answers ${response.status} ${response.statusText}`);
  return response;
}

// The length of a file, if the server says it. A compressed response only says its compressed length.
function length({ headers }) {
  return headers.has("content-encoding") ? undefined : Number(headers.get("content-length")) || undefined;
}

/** Throws if the signal is aborted. */
export function stopIf(signal) {
  if (signal?.aborted) throw fail("cancelled", "cancelled");
}

/** The chunks of a stream. */
export async function* chunks(stream, url, signal) {
  const reader = stream.getReader();
  let received = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(() => {
        stopIf(signal);
        throw fail("network", `the download of ${url} broke off after ${received} bytes: load it again`);
      });
      if (done) return;
      received += value.length;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // the caller may have stopped early
  }
}

// Yields the chunks of a file and keeps the file, if all of it arrives and fits.
async function* keep(models, url, headers, chunks) {
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  const names = VERSION.filter((name) => headers.has(name));
  const response = new Response(readable, { headers: names.map((name) => [name, headers.get(name)]) });
  const stored = models.put(url, response).catch(() => readable.cancel().catch(() => {}));
  let room = true;
  let whole = false;
  try {
    for await (const chunk of chunks) {
      yield chunk;
      if (room) room = await writer.write(chunk).then(() => true, () => false);
    }
    whole = true;
  } finally {
    await (whole ? writer.close() : writer.abort()).catch(() => {});
    await stored;
  }
}
