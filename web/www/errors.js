// Errors with a `code`.

export function fail(code, message) {
  return Object.assign(new Error(message), { code });
}
