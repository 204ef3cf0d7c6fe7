// A job as it is shown, and what is said of it.
import { call } from "./client.js";

const STAGES = { text: "reading the prompt", decode: "decoding", write: "writing the file" };
const still = matchMedia("(prefers-reduced-motion: reduce)");

export const isOpen = (job) => job.status === "queued" || job.status === "in_progress";

export function told(job) {
  if (job.status === "queued") return job.queue_place ? `waits, ${job.queue_place} before it` : "waits, next in line";
  if (job.status === "in_progress") {
    return job.stage === "sample" ? `step ${job.step} of ${job.total_steps}` : STAGES[job.stage] || "begins";
  }
  if (job.status === "failed") return job.error.code === "cancelled" ? "cancelled" : `failed: ${job.error.message}`;
  return job.timings && job.timings.total ? `made in ${job.timings.total.toFixed(1)} s` : "made";
}

function factsOf(job) {
  const { inputs } = job;
  const loras = Object.entries(job.loras || {}).map(([name, weight]) => `${name} ${weight}`);
  return [
    job.size,
    job.object === "image" ? "image" : `${job.seconds} s`,
    `seed ${job.seed}`,
    job.overlap !== null ? `the last ${job.added_seconds} s are new` : "",
    job.overlap === null && inputs.includes("video") ? "from a video" : "",
    inputs.includes("image") ? "with a first frame" : "",
    inputs.includes("last_image") ? "with a last frame" : "",
    inputs.includes("mask") ? "with a mask" : "",
    job.strength !== null ? `strength ${job.strength}` : "",
    ...loras,
  ].filter(Boolean).join(", ");
}

export class Card {
  constructor(job) {
    this.node = document.getElementById("video").content.cloneNode(true).firstElementChild;
    const prompt = this.find(".prompt");
    prompt.textContent = job.prompt;
    prompt.id = `prompt-${job.id}`;
    for (const button of this.node.querySelectorAll("button")) button.setAttribute("aria-describedby", prompt.id);
    this.find("video").setAttribute("aria-describedby", prompt.id);
    this.near = this.inView = false;
    this.show(job);
  }

  find(selector) { return this.node.querySelector(selector); }

  show(job) {
    if (this.job && this.job.status !== job.status) this.wrong = null;
    this.job = job;
    const [open, done, video] = [isOpen(job), job.status === "completed", job.object === "video"];
    this.find(".facts").textContent = factsOf(job);
    this.say(this.wrong || told(job));
    this.find("progress").value = job.progress;
    this.find("progress").hidden = !open;
    this.find(".blank").textContent = open || done ? "" : told(job).split(":")[0];
    const shown = { cancel: open, download: done, change: done && video, extend: done && video, picture: done && !video,
      delete: !open };
    for (const [name, yes] of Object.entries(shown)) this.find(`[data-do="${name}"]`).hidden = !yes;
    if (!open && !done) this.find("img").hidden = true;
    if (done && this.near) this.load();
  }

  // What went wrong with what was asked of it; it stays until something else happens.
  complain(text) {
    this.wrong = text;
    this.show(this.job);
  }

  say(text) { if (this.find(".said").textContent !== text) this.find(".said").textContent = text; }

  preview(jpeg) {
    const image = this.find("img");
    image.src = `data:image/jpeg;base64,${jpeg}`;
    image.alt = "the middle frame so far";
    image.hidden = false;
  }

  // Files are held while they are near the window: a gallery may have hundreds.
  setNear(near) {
    this.near = near;
    if (near && this.job.status === "completed") this.load();
    if (!near && document.pictureInPictureElement !== this.find("video")) this.unload();
  }

  // What nobody sees does not play.
  setInView(inView) {
    this.inView = inView;
    if (inView) this.play();
    else if (document.pictureInPictureElement !== this.find("video")) this.find("video").pause();
  }

  play() {
    const video = this.find("video");
    if (this.inView && video.hasAttribute("src") && !still.matches) video.play().catch(() => {});
  }

  // Its file, fetched once.
  file() {
    this.stop = this.stop || new AbortController();
    this.fetched = this.fetched || call("GET", `/v1/videos/${this.job.id}/content`, { signal: this.stop.signal })
      .then((answer) => answer.blob()).then((blob) => ({ url: URL.createObjectURL(blob), type: blob.type }));
    return this.fetched;
  }

  async load() {
    if (this.fetched || this.wrong) return;
    try {
      const { url, type } = await this.file();
      const picture = type.startsWith("image/");
      const element = this.find(picture ? "img" : "video");
      element.src = url;
      if (picture) element.alt = this.job.prompt;
      this.find("img").hidden = !picture;
      element.hidden = false;
      this.play();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.fetched = null; // so that the next look at the list tries again
      if (error.status === 404) this.complain(error.message);
    }
  }

  unload() {
    if (!this.fetched) return;
    this.stop.abort();
    this.fetched.then(({ url }) => URL.revokeObjectURL(url), () => {});
    this.fetched = this.stop = null;
    for (const element of [this.find("video"), this.find("img")]) {
      element.removeAttribute("src");
      element.hidden = true;
    }
    this.find("video").load();
  }

  async download() {
    const { url } = await this.file();
    Object.assign(document.createElement("a"), { href: url, download: `${this.job.id}.${this.job.format}` }).click();
  }
}

// What to ask for to get the same with another seed, and where.
export function sameAgain(job) {
  const { prompt, size, metadata, loras, format } = job;
  if (job.object === "image") {
    return ["/v1/images/generations", { prompt, size, metadata, loras, output_format: format, background: true }];
  }
  const { fps, crf, codec, fit } = job;
  const inputs_of = job.inputs.length ? job.id : null;
  const body = { prompt, size, metadata, loras, format, fps, crf, codec, fit, inputs_of };
  if (job.overlap !== null) return ["/v1/videos/extensions", { ...body, seconds: job.added_seconds, overlap: job.overlap }];
  const { seconds, strength, interpolate, interpolate_with } = job;
  return ["/v1/videos", { ...body, seconds, strength, interpolate, interpolate_with }];
}
