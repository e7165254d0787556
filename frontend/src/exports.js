// The page of exports, while one is being made: the list is fetched anew until it is done.

const list = document.querySelector("#exports");
const told = document.querySelector(".told");
const said = document.querySelector(".said"); // for whoever hears a page
const PAUSE = 2000; // ms

async function look() {
  let status = 503;
  try {
    const answer = await fetch(location.href, {
      headers: { Accept: "text/html", "X-Part": "list" },
    });
    status = answer.status;
    if (answer.ok) show(await answer.text());
  } catch {
    status = 503; // away for a moment: the next look may find it
  }
  if (status < 400 || status === 429 || status >= 500) wait();
  else told.textContent = status === 401 || status === 403 ? told.dataset.ended : told.dataset.over;
}

const stages = () =>
  new Map([...list.querySelectorAll("article")].map((each) => [
    place(each.querySelector("h2 a")),
    `${each.querySelector("h2").textContent}: ${each.querySelector(".stage").textContent.trim()}`,
  ]));
const place = (each) => each.getAttribute("href") ?? each.form?.getAttribute("action");

// What has not changed stays as it is; and what had the focus has it again, if it is still there.
function show(text) {
  const made = document.createElement("template");
  made.innerHTML = text;
  if (made.innerHTML.trim() === list.innerHTML.trim()) return;
  const before = stages();
  const held = list.contains(document.activeElement) && place(document.activeElement);
  list.replaceChildren(made.content);
  if (held) [...list.querySelectorAll("a, button")].find((each) => place(each) === held)?.focus();
  const changed = [...stages()].filter(([name, stage]) => before.get(name) !== stage);
  if (changed.length) said.textContent = changed.map(([, stage]) => stage).join(" ");
}

function wait() {
  if (list.querySelector("[data-busy]")) setTimeout(look, PAUSE);
}

wait();
