// Model files on their way from the network or from the browser's cache, where a file is kept once all of it has come.

import { fail } from "./errors.js";

const CACHE = "nanotern-models";
const VERSION = ["etag", "last-modified", "content-length", "content-encoding"];

// Pages that are not secure, or may store nothing, have no cache.
const store = async () => globalThis.caches?.open(CACHE).catch(() => undefined);

/** Whether all of a file is kept. */
export async function isKept(url) {
  return Boolean(await (await store())?.match(url));
}

/** Forgets every file. */
export async function forget() {
  await globalThis.caches?.delete(CACHE).catch(() => undefined);
}

/** A file: its bytes as they come, how many there are if that is known, and whether they were kept. */
export async function open(url, { cache, signal }) {
  const models = cache ? await store() : undefined;
  const kept = await models?.match(url);
  if (kept && await isCurrent(url, kept, signal)) return { total: length(kept), chunks: chunks(kept.body, url), kept: true };
  const response = await reach(url, signal);
  const total = length(response);
  const all = chunks(response.body, url, signal);
  return { total, chunks: models ? keep(models, url, response.headers, all) : all, kept: false };
}

// Whether the server still has the file that was kept. Without a network it is taken as it is.
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

// Bytes of a file, if the server says: a compressed response says how long it is on the way.
function length({ headers }) {
  return headers.has("content-encoding") ? undefined : Number(headers.get("content-length")) || undefined;
}

/** Throws if that was asked for. */
export function stopIf(signal) {
  if (signal?.aborted) throw fail("cancelled", "cancelled");
}

/** The pieces of a stream. */
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
    reader.cancel().catch(() => {}); // its reader may have left early
  }
}

// Passes a file on and keeps it, if all of it comes and there is room for it.
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
