// Marking parts that are to be silent: on the picture, by keys, or by typing. The form is the truth;
// what is drawn on the picture is made from it, and it is sent as a form is without a script.

// `at`: where the player is; `hear`: let it play an address instead, or null for what it had; `use`:
// told whenever something was marked or typed.
export function redact({ box, slider, duration, channels, words, at, use, clock, hear }) {
  const form = box.querySelector("form");
  const list = form.querySelector(".parts");
  const blank = form.querySelector("template").content.firstElementChild;
  const told = form.querySelector(".told");
  const drag = box.querySelector(".drag");
  const most = Number(list.dataset.most);
  let next = list.children.length;
  let begun = null;

  const whole = Math.ceil(duration * 1000); // ms
  const rows = () => [...list.children];
  const field = (row, name) => row.querySelector(`[name^="${name}-"]`);

  // --- Times, as the form has them ---------------------------------------------------------------

  function read(text) {
    const match = /^(?:(?:(\d{1,2}):)?(\d{1,3}):)?(\d{1,5})(?:[.,](\d{1,3}))?$/.exec(text.trim());
    if (!match) return NaN;
    const [hours, minutes, seconds] = match.slice(1, 4).map((part) => Number(part ?? 0));
    return (hours * 3600 + minutes * 60 + seconds) * 1000 + Number((match[4] ?? "").padEnd(3, "0"));
  }

  function write(milliseconds) {
    const rest = milliseconds % 1000;
    return clock(Math.floor(milliseconds / 1000)) + (rest ? `.${`${rest}`.padStart(3, "0")}` : "");
  }

  function spans() {
    return rows()
      .map((row) => ({
        start: read(field(row, "from").value),
        stop: read(field(row, "to").value),
        lane: field(row, "lane")?.value ?? "",
      }))
      .filter(({ start, stop }) => start < Math.min(stop, whole));
  }

  // --- What is marked ----------------------------------------------------------------------------

  function add(start, stop) {
    if (rows().length >= most || stop <= start) return;
    const row = blank.cloneNode(true);
    row.querySelectorAll("[name]").forEach((each) => (each.name = each.name.replace("NEW", next)));
    next += 1;
    field(row, "from").value = write(start);
    field(row, "to").value = write(stop);
    list.append(row);
    prepare(row);
    told.textContent = `${words.marked} ${write(start)}–${write(stop)}`;
    draw();
  }

  function prepare(row) {
    const drop = row.querySelector(".drop");
    drop.hidden = false;
    drop.addEventListener("click", () => {
      const beside = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      draw();
      (beside?.querySelector(".drop") ?? drag).focus();
    });
  }

  function draw() {
    use();
    slider.querySelectorAll(".cut").forEach((each) => each.remove());
    for (const { start, stop, lane } of spans()) paint(start, stop, lane);
    form.querySelector(".none").hidden = rows().length > 0;
  }

  function paint(start, stop, lane) {
    const cut = document.createElement("div");
    cut.className = "cut";
    cut.style.insetInlineStart = `${Math.min(start / duration / 10, 100)}%`;
    cut.style.inlineSize = `${(Math.min(stop / 1000, duration) - start / 1000) / duration * 100}%`;
    if (lane && channels === 2) cut.dataset.lane = lane;
    slider.append(cut);
    return cut;
  }

  // --- By keys, or by the buttons that do the same -------------------------------------------------

  const here = () => Math.min(Math.round(at() * 1000), whole);

  function edge(which) {
    box.open = true;
    if (which === "from") {
      begun = here();
      told.textContent = `${words.begins} ${write(begun)}`;
    } else if (begun !== null) {
      const end = here();
      add(Math.min(begun, end), Math.max(begun, end));
      begun = null;
    }
  }

  // --- On the picture ------------------------------------------------------------------------------

  function place(event, shade) {
    const { left, width } = shade.getBoundingClientRect();
    const part = Math.min(Math.max((event.clientX - left) / width, 0), 1);
    return Math.round(part * duration * 1000);
  }

  function shaded(on) {
    drag.setAttribute("aria-pressed", on);
    slider.querySelector(".shade")?.remove();
    if (!on) return;
    const shade = document.createElement("div");
    shade.className = "shade";
    let from = null;
    let cut = null;
    shade.addEventListener("pointerdown", (event) => {
      shade.setPointerCapture(event.pointerId);
      from = place(event, shade);
      event.preventDefault();
    });
    shade.addEventListener("pointermove", (event) => {
      if (from === null) return;
      cut?.remove();
      const to = place(event, shade);
      cut = paint(Math.min(from, to), Math.max(from, to), "");
    });
    shade.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = place(event, shade);
      cut?.remove();
      add(Math.min(from, to), Math.max(from, to));
      from = cut = null;
    });
    ["pointerdown", "click"].forEach((name) =>
      shade.addEventListener(name, (event) => event.stopPropagation()));
    slider.append(shade);
  }

  // --- Put together --------------------------------------------------------------------------------

  rows().forEach((row) => (field(row, "from").value + field(row, "to").value ? prepare(row) : row.remove()));
  box.querySelectorAll("audio.tried, p.tried").forEach((each) => each.remove());
  box.querySelector(".marks").hidden = false;
  drag.addEventListener("click", () => shaded(drag.getAttribute("aria-pressed") !== "true"));
  box.querySelectorAll("[data-edge]").forEach((each) =>
    each.addEventListener("click", () => edge(each.dataset.edge)));
  list.addEventListener("input", draw);
  form.addEventListener("input", use);
  box.addEventListener("toggle", () => box.open || shaded(false));

  const back = form.querySelector(".as-is");
  form.addEventListener("submit", (event) => {
    const marked = spans();
    const typed = rows().filter((row) => `${field(row, "from").value}${field(row, "to").value}`.trim());
    // What is no part of it goes to the archive, which says so in words.
    if (event.submitter?.value !== "hear" || !marked.length || marked.length < typed.length) return;
    event.preventDefault();
    const parts = marked.map(({ start, stop, lane }) => `${start}-${stop}${lane && `@${lane}`}`);
    hear(`silent=${parts.join(",")}`, Math.min(...marked.map(({ start }) => start)) / 1000 - 2);
    told.textContent = words.trial;
    back.hidden = false;
  });
  back.addEventListener("click", () => {
    hear(null, at());
    told.textContent = "";
    back.hidden = true;
  });
  draw();
  return { edge, draw };
}
