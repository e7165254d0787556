// The page of exports, while one is being made: the list is fetched anew until it is done.

const list = document.querySelector("#exports");
const PAUSE = 2000; // ms

async function look() {
  try {
    const answer = await fetch(location.href, {
      headers: { Accept: "text/html", "X-Part": "list" },
    });
    if (!answer.ok) return;
    list.innerHTML = await answer.text();
  } catch {
    // Away for a moment: the next look may find it.
  }
  wait();
}

function wait() {
  if (list.querySelector("[data-busy]")) setTimeout(look, PAUSE);
}

wait();
