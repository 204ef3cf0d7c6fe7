// The gallery: what the server keeps, the newest first, as it is now and whoever made it.
import { ask, call, read } from "./client.js";
import { Card, isOpen, sameAgain, told } from "./card.js";

const list = document.getElementById("videos");
const news = document.getElementById("news");
const cards = new Map(); // id of a job -> its card
const streams = new Map(); // id of a job -> what ends its stream of events
const PAGE = 24;
const MOST_STREAMS = 2; // a browser has six connections to a server, for all of its tabs
const MOST_RENEWED = 4;
let changes = 0; // made here; an answer that was on its way meanwhile does not know of them
let handlers = {};

const near = watch("400px", (card, yes) => card.setNear(yes));
const inView = watch("0px", (card, yes) => card.setInView(yes));

function watch(rootMargin, tellCard) {
  return new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const card = cards.get(target.dataset.id);
      if (card) tellCard(card, isIntersecting);
    }
  }, { rootMargin });
}

// Tells those who do not see the page.
function tell(job, said) { news.textContent = `${job.prompt.slice(0, 60)}: ${said}`; }

// given: use(job, what), for "change this" and its like; gone(id), when a job is no more; say(error).
export function begin(given) {
  handlers = given;
  document.getElementById("more").addEventListener("click", () => older().catch(handlers.say));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) for (const stream of streams.values()) stream.abort();
    else refresh().catch(() => {});
  });
  tick();
}

async function tick() {
  if (!document.hidden) await refresh().catch(() => {}); // the server may be about to come back
  setTimeout(tick, [...cards.values()].some((card) => isOpen(card.job)) ? 2000 : 5000);
}

function put(job, place) {
  const known = cards.get(job.id);
  if (known) { show(known, job); return known; }
  const card = new Card(job);
  card.node.dataset.id = job.id;
  card.node.addEventListener("click", (event) => act(card, event.target.dataset.do));
  cards.set(job.id, card);
  place(card.node);
  near.observe(card.node);
  inView.observe(card.node);
  return card;
}

function show(card, job) {
  if (card.job.status !== job.status) tell(job, told(job));
  card.show(job);
}

// A job that was just posted here.
export function add(job) {
  changes += 1;
  put(job, (node) => list.prepend(node));
  tell(job, told(job));
  arranged();
}

function forget(id) {
  const { node, job } = cards.get(id);
  changes += 1;
  cards.get(id).unload();
  cards.delete(id);
  near.unobserve(node);
  inView.unobserve(node);
  if (streams.has(id)) streams.get(id).abort();
  if (node.contains(document.activeElement)) {
    const next = node.nextElementSibling || node.previousElementSibling;
    (next ? next.querySelector("button:not([hidden])") : document.getElementById("made")).focus();
  }
  node.remove();
  tell(job, "gone");
  handlers.gone(id);
  arranged();
}

export function clear() {
  for (const id of [...cards.keys()]) forget(id);
}

function arranged() {
  document.getElementById("none").hidden = cards.size > 0;
  follow();
}

// The newest jobs as they are now, those of other tabs too; and a few older ones that are still to be made.
export async function refresh() {
  const before = changes;
  const { data, has_more: more } = await ask("GET", `/v1/videos?kind=all&limit=${PAGE}`);
  if (changes !== before) return;
  const [there, last] = [new Set(data.map((job) => job.id)), data.at(-1)];
  const apart = more && !data.some((job) => cards.has(job.id)); // what is between these and the others is not known
  let within = true;
  for (const { dataset: { id } } of [...list.children]) {
    if (!there.has(id) && (within || !more || apart)) forget(id);
    if (last && id === last.id) within = false;
  }
  let previous = null;
  for (const job of data) {
    const after = previous;
    previous = put(job, (node) => (after ? after.after(node) : list.prepend(node))).node;
  }
  if (list.children.length <= data.length) document.getElementById("more").hidden = !more;
  const others = [...cards.values()].filter(({ job }) => isOpen(job) && !there.has(job.id));
  await Promise.all(others.slice(-MOST_RENEWED).map(renew));
  arranged();
}

async function renew(card) {
  try {
    show(card, await ask("GET", `/v1/videos/${card.job.id}`));
  } catch (error) {
    if (error.status === 404 && cards.has(card.job.id)) forget(card.job.id);
  }
}

async function older() {
  for (;;) {
    const after = list.lastElementChild ? `&after=${list.lastElementChild.dataset.id}` : "";
    try {
      const page = await ask("GET", `/v1/videos?kind=all&limit=${PAGE}${after}`);
      for (const job of page.data) put(job, (node) => list.append(node));
      document.getElementById("more").hidden = !page.has_more;
      return arranged();
    } catch (error) {
      if (error.status !== 404 || !after) throw error;
      forget(list.lastElementChild.dataset.id); // deleted elsewhere: the one before it tells the place
    }
  }
}

// Streams of what runs, and of what is next.
function follow() {
  const open = [...list.children].map((node) => cards.get(node.dataset.id)).filter((card) => isOpen(card.job)).reverse();
  open.sort((a, b) => (b.job.status === "in_progress") - (a.job.status === "in_progress"));
  for (const card of open) {
    if (document.hidden || streams.size >= MOST_STREAMS) return;
    if (!streams.has(card.job.id)) listen(card);
  }
}

// Server-sent events by fetch: an EventSource cannot send a key.
async function listen(card) {
  const { id } = card.job;
  const stop = new AbortController();
  streams.set(id, stop);
  try {
    const answer = await call("GET", `/v1/videos/${id}/events`, { signal: stop.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) heard(card, part);
    }
  } catch { /* the next look at the list tells what became of it */ }
  streams.delete(id);
  if (cards.has(id) && !isOpen(card.job)) follow();
}

function heard(card, part) {
  const found = /^event: (\w+)\ndata: (.*)$/s.exec(part);
  if (!found || !cards.has(card.job.id)) return;
  if (found[1] === "preview") card.preview(JSON.parse(found[2]).jpeg);
  else if (found[1] === "deleted") forget(card.job.id);
  else if (found[1] !== "closing") show(card, read(found[2]));
}

async function act(card, what) {
  const { job } = card;
  card.wrong = null;
  try {
    if (what === "cancel") show(card, await ask("POST", `/v1/videos/${job.id}/cancel`));
    if (what === "again") await post(...sameAgain(job));
    if (what === "delete") { await ask("DELETE", `/v1/videos/${job.id}`); forget(job.id); }
    if (what === "download") await card.download();
    if (["change", "extend", "picture"].includes(what)) handlers.use(job, what);
  } catch (error) {
    if (error.status === 404 && cards.has(job.id)) return forget(job.id); // in another tab, say
    card.complain(error.message);
    tell(job, error.message);
  }
}

// Ask for new jobs: a video is answered by itself, images by a list of them.
export async function post(path, body) {
  const answer = await ask("POST", path, { body });
  for (const job of answer.data || [answer]) add(job);
}
