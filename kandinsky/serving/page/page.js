// The page: a client of /v1 like any other. What it shows is what the server keeps.
import { ask } from "./client.js";
import { allow, order, say, use, withoutJob } from "./form.js";
import { begin, clear, post, refresh } from "./gallery.js";

const form = document.getElementById("ask");
const button = form.querySelector("button[type=submit]");
const LOOK = 5000; // milliseconds between two looks at the server's state
let known = false; // whether the server was asked what it allows

async function look() {
  const place = document.getElementById("state");
  let said;
  try {
    const { status, workers } = await (await fetch("/ready")).json();
    said = status === "loading" ? `weights: ${Object.values(workers)[0]}` : status;
    if (!known) {
      known = true;
      await start();
    }
  } catch {
    said = "the server does not answer";
  }
  if (place.textContent !== said) place.textContent = said;
}

async function start() {
  try {
    allow((await ask("GET", "/v1/models")).data[0]);
    say(null);
    await refresh();
  } catch (error) {
    say(error);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.ariaDisabled === "true") return; // it is on its way; a button that is really disabled loses the focus
  button.ariaDisabled = "true";
  say(null);
  try {
    await post(...order());
  } catch (error) {
    say(error);
  } finally {
    button.ariaDisabled = "false";
  }
});
form.key.addEventListener("change", () => {
  localStorage.setItem("key", form.key.value);
  clear();
  start();
});
begin({ use, say, gone: withoutJob });
look();
setInterval(look, LOOK);
