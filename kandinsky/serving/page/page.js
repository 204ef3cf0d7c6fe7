// The page: a client of /v1 like any other. What it shows is what the server keeps; nothing is kept here but the key.
"use strict";

const form = document.getElementById("ask");
const list = document.getElementById("videos");
const items = new Map(); // id of a video -> its item on the page
const STAGES = { text: "reading the prompt", decode: "decoding", write: "writing the file" };
let last = null;

// Seeds may have more digits than a browser's numbers: they are kept as text.
const parse = (text) => JSON.parse(text.replace(/("seed":\s*)(\d+)/g, '$1"$2"'));

async function call(method, path, body) {
  const headers = {};
  const key = localStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const files = body instanceof FormData;
  if (body && !files) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && !files ? JSON.stringify(body) : body });
  if (answer.status === 401) document.getElementById("key").hidden = false;
  if (!answer.ok) {
    const text = await answer.text();
    let said = text;
    try { said = JSON.parse(text).error.message; } catch { /* not ours: a proxy's, say */ }
    throw Object.assign(new Error(said), { status: answer.status });
  }
  return answer;
}

const ask = async (method, path, body) => parse(await (await call(method, path, body)).text());

function refused(error) {
  const place = document.getElementById("refused");
  place.textContent = error ? error.message : "";
  place.hidden = !error;
}

function told(video) {
  if (video.status === "queued") {
    return video.queue_place ? `waits, ${video.queue_place} before it` : "waits, next in line";
  }
  if (video.status === "in_progress") {
    return video.stage === "sample" ? `step ${video.step} of ${video.total_steps}` : STAGES[video.stage] || "begins";
  }
  if (video.status === "failed") return video.error.code === "cancelled" ? "cancelled" : `failed: ${video.error.message}`;
  return video.timings && video.timings.total ? `made in ${video.timings.total.toFixed(1)} s` : "made";
}

function make(video) {
  const node = document.getElementById("video").content.cloneNode(true).firstElementChild;
  const item = { node, video, find: (name) => node.querySelector(name), following: false, loaded: false };
  item.find(".prompt").textContent = video.prompt;
  item.find(".facts").textContent = `${video.size}, ${video.seconds} s, seed ${video.seed}`;
  node.addEventListener("click", (event) => act(item, event.target.dataset.do));
  items.set(video.id, item);
  return item;
}

function show(item, video) {
  item.video = video;
  const open = video.status === "queued" || video.status === "in_progress";
  const done = video.status === "completed";
  item.find(".said").textContent = told(video);
  item.find("progress").value = video.progress;
  item.find("progress").hidden = !open;
  item.find(".blank").textContent = open ? "" : done ? "" : told(video).split(":")[0];
  item.find('[data-do="cancel"]').hidden = !open;
  item.find('[data-do="download"]').hidden = !done;
  item.find('[data-do="again"]').hidden = video.overlap !== null; // what it went on from may be long
  item.find('[data-do="delete"]').hidden = open;
  if (open && !item.following) follow(item);
  if (done && !item.loaded) load(item);
  if (!open && !done) item.find("img").hidden = true;
}

async function load(item) {
  item.loaded = true;
  try {
    const blob = await (await call("GET", `/v1/videos/${item.video.id}/content`)).blob();
    item.url = URL.createObjectURL(blob);
    const picture = blob.type.startsWith("image/");
    const element = item.find(picture ? "img" : "video");
    element.src = item.url;
    item.find("img").hidden = !picture;
    element.hidden = false;
    if (!picture) element.play().catch(() => {});
  } catch (error) {
    item.find(".said").textContent = error.message;
  }
}

function preview(item, jpeg) {
  const image = item.find("img");
  image.src = `data:image/jpeg;base64,${jpeg}`;
  image.alt = "the middle frame so far";
  image.hidden = false;
}

// Server-sent events by fetch: an EventSource cannot send a key.
async function follow(item) {
  item.following = true;
  try {
    const answer = await call("GET", `/v1/videos/${item.video.id}/events`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const found = /^event: (\w+)\ndata: (.*)$/s.exec(part);
        if (!found) continue;
        if (found[1] === "preview") preview(item, JSON.parse(found[2]).jpeg);
        else if (found[1] !== "deleted" && found[1] !== "closing") show(item, parse(found[2]));
      }
    }
  } catch (error) {
    if (error.status === 404) return forget(item);
  } finally {
    item.following = false;
  }
  if (item.video.status === "queued" || item.video.status === "in_progress") setTimeout(() => renew(item), 1500);
}

async function renew(item) {
  try {
    show(item, await ask("GET", `/v1/videos/${item.video.id}`));
  } catch (error) {
    if (error.status === 404) forget(item);
    else setTimeout(() => renew(item), 3000); // the server may be about to come back
  }
}

function forget(item) {
  if (item.url) URL.revokeObjectURL(item.url);
  items.delete(item.video.id);
  item.node.remove();
  document.getElementById("none").hidden = items.size > 0;
}

async function act(item, what) {
  const { video } = item;
  try {
    if (what === "cancel") show(item, await ask("POST", `/v1/videos/${video.id}/cancel`));
    if (what === "again") await begin({ ...options(video) });
    if (what === "delete") { await ask("DELETE", `/v1/videos/${video.id}`); forget(item); }
    if (what === "download") {
      const link = Object.assign(document.createElement("a"), { href: item.url, download: `${video.id}.${video.format}` });
      link.click();
    }
  } catch (error) {
    item.find(".said").textContent = error.message;
  }
}

// What to ask for to get the same with another seed.
function options(video) {
  const names = ["prompt", "seconds", "size", "format", "fps", "crf", "codec", "metadata", "interpolate", "interpolate_with", "strength",
    "fit"];
  const again = Object.fromEntries(names.filter((name) => video[name] !== null).map((name) => [name, video[name]]));
  return video.inputs.length ? { ...again, inputs_of: video.id } : again;
}

// With a picture as the first frame: cropped to the size that was chosen.
function withPicture(body, picture) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ ...body, fit: "cover" })) form.set(name, value);
  form.set("input_reference", picture);
  return form;
}

async function begin(body) {
  const video = await ask("POST", "/v1/videos", body);
  const item = make(video);
  list.prepend(item.node);
  document.getElementById("none").hidden = true;
  show(item, video);
}

async function older() {
  const page = await ask("GET", `/v1/videos?limit=24${last ? `&after=${last}` : ""}`);
  for (const video of page.data) {
    if (items.has(video.id)) continue;
    const item = make(video);
    list.append(item.node);
    show(item, video);
  }
  last = page.last_id || last;
  document.getElementById("more").hidden = !page.has_more;
  document.getElementById("none").hidden = items.size > 0;
}

async function look() {
  const place = document.getElementById("state");
  try {
    const { status, workers } = await (await fetch("/ready")).json();
    place.textContent = status === "loading" ? `weights: ${Object.values(workers)[0]}` : status;
  } catch {
    place.textContent = "the server does not answer";
  }
}

async function start() {
  try {
    const [model] = (await ask("GET", "/v1/models")).data;
    form.size.replaceChildren(...model.sizes.map((size) => new Option(size, size)));
    form.size.value = model.default_size;
    form.seconds.max = model.max_seconds;
    form.seconds.value = Math.min(5, model.max_seconds);
    form.prompt.maxLength = model.max_prompt;
    await older();
    refused(null);
  } catch (error) {
    refused(error);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { prompt: form.prompt.value, size: form.size.value, seconds: form.seconds.value };
  if (form.interpolate.value) body.interpolate = form.interpolate.value;
  if (form.seed.value.trim()) body.seed = form.seed.value.trim();
  try {
    const [picture] = form.image.files;
    await begin(picture ? withPicture(body, picture) : body);
    refused(null);
  } catch (error) {
    refused(error);
  }
});
form.key.addEventListener("change", () => { localStorage.setItem("key", form.key.value); last = null; start(); });
document.getElementById("more").addEventListener("click", () => older().catch(refused));
look();
setInterval(look, 5000);
start();
