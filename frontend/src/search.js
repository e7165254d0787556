// The search page, as it is typed: the same form that works without a script is sent after a short
// pause, only the list comes back, and the address becomes one that can be kept.

import { shortcuts } from "./shortcuts.js";

const form = document.querySelector("form.search");
const found = document.querySelector("#found");
const told = document.querySelector(".told");
const counted = document.querySelector(".counted"); // for whoever hears a page
const text = document.querySelector("#text");

const PAUSE = 180; // ms after the last key
let waiting = 0;
let asked = new AbortController();
let down = false; // whether the list was gone down: only then is more of it wanted

// What each status of the archive comes to; all else, and no answer at all, is "away".
const FAILED = { 401: "ended", 403: "ended", 410: "old", 429: "many" };

async function ask(address, options) {
  const answer = await fetch(address, {
    ...options,
    headers: { Accept: "text/html", "X-Part": "list" },
  });
  if (!answer.ok) throw new Error(FAILED[answer.status] ?? "away");
  return answer;
}

async function search() {
  clearTimeout(waiting);
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  found.setAttribute("aria-busy", "true");
  try {
    const body = new URLSearchParams(new FormData(form));
    const answer = await ask(form.action, { method: "POST", body, signal });
    found.innerHTML = await answer.text();
    counted.textContent = found.querySelector("[data-counted]").dataset.counted;
    history.replaceState(null, "", answer.headers.get("X-Address"));
    say("");
    down = false;
  } catch (error) {
    if (signal.aborted) return;
    failed(error);
  }
  found.removeAttribute("aria-busy");
}

function say(what) {
  if (told.textContent !== what) told.textContent = what;
}

const failed = (error) => say(form.dataset[error.message] ?? form.dataset.away);

// Older calls come before they are asked for: when the end of the list comes near.
const near = new IntersectionObserver(
  (entries) => entries.some((entry) => entry.isIntersecting) && further(),
  { rootMargin: "800px" },
);

function watch() {
  near.disconnect();
  const link = found.querySelector(".further a");
  if (link && down) near.observe(link);
}

async function further() {
  const link = found.querySelector(".further a");
  if (!link || found.getAttribute("aria-busy")) return;
  near.disconnect();
  found.setAttribute("aria-busy", "true");
  const { signal } = asked;
  try {
    const answer = await ask(link.href, { signal });
    const more = document.createRange().createContextualFragment(await answer.text());
    if (signal.aborted) return;
    const rows = found.querySelector("tbody");
    rows.append(...more.querySelectorAll("tbody tr"));
    link.parentElement.replaceWith(...more.querySelectorAll(".further"));
    say("");
    watch();
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
  found.removeAttribute("aria-busy");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
form.addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(search, event.target === text ? PAUSE : 0);
});
found.addEventListener("click", (event) => {
  if (!event.target.closest(".further a") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  down = true;
  further();
});
function goDown() {
  if (down) return;
  down = true;
  watch();
}
window.addEventListener("scroll", goDown, { passive: true });

function move(by) {
  const links = [...found.querySelectorAll("tbody a")];
  const at = links.indexOf(document.activeElement) + by;
  if (at < 0) text.focus();
  else links[Math.min(at, links.length - 1)]?.focus();
}

shortcuts({
  "/": () => {
    text.focus();
    text.select();
  },
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  j: () => move(1),
  k: () => move(-1),
});

// From the box straight into the list, whether shortcuts are on or not: it is no single letter.
text.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown") return;
  event.preventDefault();
  move(1);
});
