// Errors with a `code`, on both sides of the worker.

export function fail(code, message) {
  return Object.assign(new Error(message), { code });
}
