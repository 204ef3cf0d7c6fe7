// The form: which fields belong to what is made, what is sent, and where it is said what is wrong.

const form = document.getElementById("ask");
const own = new Map(); // field -> the job of the gallery whose result stands in the place of a file
const ROUTES = { text: "/v1/videos", picture: "/v1/videos", change: "/v1/videos/edits", extend: "/v1/videos/extensions",
  image: "/v1/images/generations" };
const SECONDS = { text: "Seconds", picture: "Seconds", change: "Seconds (empty: all)", extend: "Seconds more" };
const FILES = ["image", "last_image", "video", "mask"];
const MEGA = 2 ** 20;
let model = null;

export const chosen = () => form.elements.make.value;
const belongs = (element) => !element.dataset.for || element.dataset.for.split(" ").includes(chosen());

// Fill in what the server allows.
export function allow(found) {
  model = found;
  form.prompt.maxLength = model.max_prompt;
  const loras = Object.entries(model.loras);
  const group = document.getElementById("loras");
  group.hidden = !loras.length;
  group.querySelector(".row").replaceChildren(...loras.map(([name, weight]) => {
    const label = document.getElementById("lora").content.cloneNode(true).firstElementChild;
    label.querySelector("span").textContent = name;
    const input = Object.assign(label.querySelector("input"), { value: weight, required: true });
    input.dataset.lora = name; // no name of the form's: a LoRA may be called "seed"
    return label;
  }));
  arrange();
}

// Show the fields that belong to what is made, and no others.
function arrange() {
  const what = chosen();
  for (const field of form.querySelectorAll("[data-for]")) {
    field.hidden = !belongs(field);
    for (const input of field.querySelectorAll("input, select")) input.disabled = field.hidden;
  }
  const given = ["picture", "change", "extend"].includes(what);
  const [before, sizes] = [form.size.value, (model ? model.sizes : []).map((size) => new Option(size, size))];
  form.size.replaceChildren(...(given ? [new Option("nearest", "")] : []), ...sizes);
  form.size.value = given ? "" : before || (model && model.default_size);
  document.getElementById("seconds").textContent = SECONDS[what] || "Seconds";
  const most = model && (what === "extend" ? model.max_extension : model.max_seconds);
  Object.assign(form.seconds, { max: most || "", required: what !== "change", placeholder: what === "change" ? "all" : "" });
  form.seconds.value = what === "change" ? "" : Math.min(form.seconds.value || 5, most || Infinity);
  form.querySelector("button[type=submit]").textContent = what === "image" ? "Make images" : "Make the video";
  say(null);
}

// What is to be sent, and where to; an Error with `param` if something is missing here already.
export function order() {
  const body = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || ["make", "key"].includes(input.name)) continue;
    const value = own.has(input.name) ? { id: own.get(input.name).id } : input.type === "file" ? input.files[0] : input.value;
    if (value) body[input.name] = value;
  }
  if (!document.getElementById("loras").hidden) body.loras = weights();
  if (chosen() === "image") body.background = true;
  if (chosen() === "picture" && !body.image && !body.last_image) {
    throw Object.assign(new Error("Choose a picture, for the first frame, the last, or both."), { param: "image" });
  }
  checkRoom(body);
  return [ROUTES[chosen()], body];
}

function weights() {
  return Object.fromEntries([...form.querySelectorAll("#loras input")].map((input) => [input.dataset.lora, input.valueAsNumber]));
}

// What the server would refuse when all of it has come is not sent.
function checkRoom(body) {
  const files = FILES.filter((name) => body[name] instanceof File);
  const bytes = files.reduce((sum, name) => sum + body[name].size, 0);
  if (!model || bytes + 2 ** 16 < model.max_body) return;
  const [largest] = files.sort((a, b) => body[b].size - body[a].size);
  const said = `${(bytes / MEGA).toFixed(1)} MB: all files together may have ${(model.max_body / MEGA).toFixed(1)} MB.`;
  throw Object.assign(new Error(said), { param: largest });
}

// What went wrong, at its field if it has one here, else under the button; null: nothing.
export function say(error) {
  for (const said of form.querySelectorAll(".wrong")) said.remove();
  for (const element of form.querySelectorAll("[aria-describedby=wrong]")) {
    element.removeAttribute("aria-invalid");
    element.removeAttribute("aria-describedby");
  }
  const place = document.getElementById("refused");
  const input = error && inputOf(error.param);
  place.textContent = error && !input ? error.message : "";
  place.hidden = !error || Boolean(input);
  if (!input) return;
  const said = Object.assign(document.createElement("p"), { id: "wrong", className: "wrong", textContent: error.message });
  input.closest(".field").append(said);
  const at = input.hidden ? input.closest(".field").querySelector(".own button") : input; // a job stands in its place
  at.setAttribute("aria-describedby", "wrong");
  if (at === input) input.setAttribute("aria-invalid", "true");
  at.focus();
}

function inputOf(param) {
  if (param === "loras") return form.querySelector("#loras input");
  const name = param === "video_id" ? [...own.keys()].find((field) => !form.elements[field].disabled) : param;
  const input = name && form.elements.namedItem(name);
  return input instanceof HTMLElement && input.closest(".field") && !input.disabled ? input : null;
}

// Fill the form in with a job of the gallery in the place of a file.
export function use(job, what) {
  form.elements.make.value = what;
  const field = what === "picture" ? "image" : "video";
  disown(field);
  own.set(field, job);
  const note = document.getElementById("own").content.cloneNode(true).firstElementChild;
  note.querySelector("b").textContent = job.prompt;
  note.querySelector("button").addEventListener("click", () => { disown(field); form.elements[field].focus(); });
  const input = form.elements[field];
  input.value = "";
  input.hidden = true;
  input.closest(".field").append(note);
  if (!form.prompt.value.trim()) form.prompt.value = job.prompt;
  arrange();
  form.prompt.focus();
}

function disown(field) {
  own.delete(field);
  form.elements[field].hidden = false;
  for (const note of form.elements[field].closest(".field").querySelectorAll(".own")) note.remove();
}

// The job is gone, so no field can have it.
export function withoutJob(id) {
  for (const [field, job] of own) if (job.id === id) disown(field);
}

for (const choice of form.elements.make) choice.addEventListener("change", arrange);
form.addEventListener("input", (event) => { if (event.target.hasAttribute("aria-invalid")) say(null); });
arrange();
