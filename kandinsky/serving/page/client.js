// Requests to /v1. Nothing is kept in the browser but the key.

// Seeds may have more digits than a browser's numbers: they are kept as text.
export const read = (text) => JSON.parse(text.replace(/("seed":\s*)(\d+)(?=\s*[,}])/g, '$1"$2"'));

// An answer that is no error; else an Error with `status`, `param` (the field) and `code`.
export async function call(method, path, { body, signal } = {}) {
  const headers = {};
  const key = localStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const files = body && Object.values(body).some((value) => value instanceof File);
  if (body && !files) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: files ? formOf(body) : body && JSON.stringify(body) });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  }
  if (answer.status === 401) document.getElementById("key").hidden = false;
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = { message: text || `The server answered ${answer.status}.` };
  try { said = JSON.parse(text).error; } catch { /* not ours: a proxy's, say */ }
  throw Object.assign(new Error(said.message), { status: answer.status, param: said.param, code: said.code });
}

export const ask = async (method, path, options) => read(await (await call(method, path, options)).text());

// Fields as a form, with `video[id]` for the id in {video: {id}}.
function formOf(body) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    if (value.constructor !== Object) form.set(name, value);
    else for (const [inner, one] of Object.entries(value)) form.set(`${name}[${inner}]`, one);
  }
  return form;
}
