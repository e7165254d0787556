// The player: the browser's own audio element does the playing, so that ranges, pitch and codecs are
// its business; this draws the picture, moves about in it, and says what went wrong.

import WaveSurfer from "wavesurfer.js";
import { lanes } from "./lanes.js";
import { redact } from "./redact.js";
import { shortcuts } from "./shortcuts.js";

const player = document.querySelector(".player");
const audio = player.querySelector("audio");
const slider = player.querySelector(".slider");
const words = JSON.parse(document.querySelector("#words").textContent);
const { id, lang, version, idle = Infinity } = player.dataset; // a key has no session that could end
const [start, points, duration, channels, expires, now] = [
  "start", "points", "duration", "channels", "expires", "now",
].map((name) => Number(player.dataset[name]));
const address = `/v1/recordings/${id}`;
const query = (mark) => (version ? `${mark}version=${version}` : "");
const there = (text) => `/recordings/${id}?t=${text}${query("&")}`;
const SPEEDS = [0.75, 1, 1.25, 1.5, 1.75, 2, 2.5];
const EDGE = 0.25; // s of a silence that are left on both sides
// ms between two times that the archive is told of one who listens on. What is done in between it does
// not hear of: a session may end by so much too early, and a short one by no more than a third.
const OFTEN = Math.min(60, Number(idle) / 3) * 1000;

// As it was sent if the browser can play that, else the copy, which is the last.
const sources = [...audio.querySelectorAll("source")].filter((each) => audio.canPlayType(each.type));
let source = 0;
let silences = [];
let loop = { a: null, b: null };
let over = false;
let trial = null; // what is heard instead, before it is kept

function load(from) {
  audio.querySelectorAll("source").forEach((each) => each.remove());
  audio.src = trial ?? sources[source].src.replace(/#.*/, "");
  audio.currentTime = from;
}

// --- Where it is ---------------------------------------------------------------------------------

function clock(seconds) {
  const whole = Math.floor(seconds + 0.001);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => `${part}`.padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${parts.join(":")}` : parts.join(":").replace(/^0/, "");
}

function show() {
  const at = audio.currentTime;
  const text = clock(at);
  slider.setAttribute("aria-valuenow", Math.round(at));
  slider.setAttribute("aria-valuetext", `${text} ${words.of} ${clock(duration)}`);
  player.querySelector(".now").textContent = text;
  player.querySelector(".link").href = there(text);
}

function seek(to) {
  if (over) return;
  audio.currentTime = Math.min(Math.max(to, 0), duration);
  show();
}

const step = (by) => seek(audio.currentTime + by);

// Back to where the loop begins, and over what is silent: while it plays.
function jump() {
  if (audio.paused) return;
  const at = audio.currentTime;
  if (loop.a !== null && loop.b !== null && (at >= loop.b || at < loop.a - 0.05)) seek(loop.a);
  if (skipping()) {
    const within = silences.find(([from, to]) => at >= from + EDGE && at < to - 2 * EDGE);
    if (within) seek(within[1] - EDGE);
  }
}

// Called many times a second while it plays: what a timeupdate notices late. Nobody calls it while
// the page is hidden: there the timeupdate has to do.
function follow() {
  jump();
  show();
  if (!audio.paused) requestAnimationFrame(follow);
}

// --- What can be done ----------------------------------------------------------------------------

function toggle() {
  if (over) return;
  if (audio.paused) audio.play().catch(() => {}); // an error event says more
  else audio.pause();
}

function speed(value) {
  audio.preservesPitch = true;
  audio.defaultPlaybackRate = audio.playbackRate = value;
  player.querySelector(".speed").value = `${value}`;
}

function faster(by) {
  const at = SPEEDS.indexOf(audio.playbackRate) + by;
  if (SPEEDS[at]) speed(SPEEDS[at]);
}

const skip = player.querySelector(".skip-silence");
const skipping = () => skip.getAttribute("aria-pressed") === "true";
const press = (button, on) => button.setAttribute("aria-pressed", on);

function mark(which) {
  loop[which] = audio.currentTime;
  if (loop.a !== null && loop.b !== null && loop.a > loop.b) loop = { a: loop.b, b: loop.a };
  if (loop.b !== null && loop.b - (loop.a ?? 0) < 0.3) loop.b = null;
  drawLoop();
}

function unloop() {
  loop = { a: null, b: null };
  drawLoop();
}

function drawLoop() {
  const { a, b } = loop;
  press(player.querySelector("[data-mark=a]"), a !== null);
  press(player.querySelector("[data-mark=b]"), b !== null);
  player.querySelector(".unloop").disabled = a === null && b === null;
  slider.querySelector(".span")?.remove();
  if (a === null && b === null) return;
  const span = document.createElement("div");
  span.className = "span";
  const from = a ?? b;
  span.style.insetInlineStart = `${(from / duration) * 100}%`;
  span.style.inlineSize = `${(((b ?? from) - from) / duration) * 100}%`;
  slider.append(span);
}

async function link() {
  const here = new URL(there(clock(audio.currentTime)), location.href);
  history.replaceState(null, "", here);
  try {
    await navigator.clipboard.writeText(here.href);
    say(words.copied);
  } catch {
    say(words.shown);
  }
}

function say(what) {
  const said = player.querySelector(".said");
  said.classList.remove("hidden");
  said.textContent = what;
}

// --- What went wrong -----------------------------------------------------------------------------

const note = player.querySelector(".note");

function tell(text, action) {
  note.textContent = text;
  if (action) note.append(" ", action);
  note.hidden = false;
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

function anchor(text, href) {
  const made = document.createElement("a");
  made.textContent = text;
  made.href = href;
  return made;
}

function erased() {
  if (over) return;
  over = true;
  audio.pause();
  audio.removeAttribute("src");
  audio.load(); // what the browser still holds goes as well
  playing();
  slider.replaceChildren();
  document.querySelectorAll(".columns, .redact, .silent").forEach((each) => each.remove()); // and what it shows
  player.querySelectorAll("button, select, input").forEach((each) => (each.disabled = true));
  tell(words.erased, anchor(words.certificate, `/v1/certificates/${id}/page?lang=${lang}`));
}

const ask = (how) => fetch(`${address}/audio${query("?")}`, how).then((answer) => answer.status, () => 0);
const reload = () => anchor(words.again, there(clock(audio.currentTime || start)));

// An audio element does not say why it failed: asking for the head alone does, and is no listening.
async function explain() {
  if (over || !audio.error) return;
  const at = audio.currentTime || start;
  let status = await ask({ method: "HEAD" });
  if (status === 410) return erased();
  if (status === 401) return tell(words.ended, reload());
  if (status === 403) return tell(words.reason, reload());
  if (status === 404) return tell(words.missing, null);
  if (status === 200 && audio.error.code >= 3 && !trial && source + 1 < sources.length && !played) {
    source += 1; // it claimed to play what it cannot
    load(at);
    return toggle();
  }
  // All is well but the sound itself: now it has to be asked for.
  if (status === 200) status = await ask({ headers: { Range: "bytes=0-0" } });
  if (status === 429) return tell(words.many, null);
  tell(words.away, button(words.retry, () => again(at)));
}

function again(at) {
  note.hidden = true;
  load(at);
  toggle();
  player.querySelector(".play").focus();
}

// A session ends when it is not used. Who hears or marks what the browser holds already does use it:
// the archive is told so by asking for the head, and tells what has ended meanwhile.
let used = performance.now();

async function use() {
  if (over || performance.now() - used < OFTEN) return;
  used = performance.now();
  const status = await ask({ method: "HEAD" });
  if (status === 410) return erased();
  if (status === 401) tell(words.ended, reload());
}

let played = false;
audio.addEventListener("error", explain);
audio.addEventListener("playing", () => {
  played = true;
  note.hidden = true;
});

// The archive's clock, by the later of two clocks here: a machine that slept has missed one of them.
const begun = [Date.now(), performance.now()];

function remaining() {
  const gone = Math.max(Date.now() - begun[0], performance.now() - begun[1]);
  return expires - now - gone;
}

const countdown = document.querySelector(".countdown");
function tick() {
  const left = remaining();
  if (left <= 0) {
    countdown.textContent = "0:00";
    return erased();
  }
  if (left < 24 * 3600_000) countdown.textContent = clock(left / 1000);
  setTimeout(tick, Math.min(left + 20, 1000));
}

// --- The picture ---------------------------------------------------------------------------------

function colours() {
  const of = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  return { accent: of("--accent"), lane: of("--lane"), line: of("--line"), ink: of("--ink") };
}

function lane(colour, tints, height) {
  return { waveColor: colour, progressColor: tints.accent, height };
}

async function draw() {
  const answer = await fetch(`${address}/waveform?points=${points}${query("&")}`);
  if (!answer.ok) throw new Error(`${answer.status}`);
  const picture = await answer.json();
  const height = channels === 2 ? 80 : 112;
  const peaks = picture.channels.map((each) => each.map((peak) => peak / 127));
  const look = () => {
    const tints = colours();
    return {
      cursorColor: tints.ink,
      splitChannels: peaks.map(() => lane(tints.lane, tints, height)),
      ...lane(tints.lane, tints, height),
    };
  };
  const wave = WaveSurfer.create({
    container: slider,
    media: audio,
    peaks,
    duration: picture.duration,
    cspNonce: player.dataset.nonce,
    barWidth: 2,
    barGap: 1,
    barRadius: 2,
    barMinHeight: 1,
    cursorWidth: 2,
    dragToSeek: true,
    hideScrollbar: true,
    maxPeak: Math.max(0.1, ...peaks.flat()),
    normalize: true,
    ...look(),
  });
  wave.on("interaction", show);
  wave.on("ready", () => {
    wave.setTime(audio.currentTime);
    drawLoop();
    marks.draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => wave.setOptions(look()));
  silences = picture.silences;
  shares(picture);
}

function shares(picture) {
  const names = channels === 2 ? [words.left, words.right] : [words.both];
  const percent = new Intl.NumberFormat(lang, { style: "percent" });
  const rows = [...picture.talk.map((share, at) => [names[at], share]), [words.silence, picture.silence]];
  const box = document.querySelector(".share");
  for (const [name, share] of rows) {
    if (!name) continue;
    const row = document.createElement("div");
    const meter = document.createElement("meter");
    const label = document.createElement("span");
    const value = document.createElement("span");
    label.textContent = name;
    value.textContent = percent.format(share);
    value.className = "number";
    meter.value = share;
    meter.setAttribute("aria-label", name);
    row.append(label, meter, value);
    box.append(row);
  }
  document.querySelector(".talk").hidden = false;
}

// --- Put together --------------------------------------------------------------------------------

const sides = lanes(player, audio);
const on = (selector, act) =>
  player.querySelectorAll(selector).forEach((each) => each.addEventListener("click", () => act(each)));
on(".play", toggle);
on("[data-by]", (each) => step(Number(each.dataset.by)));
on("[data-mark]", (each) => mark(each.dataset.mark));
on(".unloop", unloop);
on(".skip-silence", () => press(skip, !skipping()));
player.querySelector(".speed").addEventListener("change", (event) => speed(Number(event.target.value)));
player.querySelector(".link").addEventListener("click", (event) => {
  event.preventDefault();
  link();
});

const box = document.querySelector(".redact");
const marks = redact({
  box,
  slider,
  duration,
  channels,
  words,
  clock,
  at: () => audio.currentTime,
  use,
  hear(what, from) {
    const kept = trial;
    // What is kept is made of the original: who may hear that hears it before as it will be.
    const whole = box.dataset.version ? `&version=${box.dataset.version}` : "";
    trial = what && `${address}/audio?format=wav&${what}${whole}`;
    if (!what && !kept) return;
    load(Math.max(from, 0));
    if (what) audio.play().catch(() => {});
  },
});

function playing() {
  player.classList.toggle("playing", !audio.paused);
  player.querySelector(".play").setAttribute("aria-label", audio.paused ? words.play : words.pause);
  if (!audio.paused) follow();
}
["play", "pause", "ended"].forEach((name) => audio.addEventListener(name, playing));
["seeked", "timeupdate"].forEach((name) => audio.addEventListener(name, show));
[jump, use].forEach((act) => audio.addEventListener("timeupdate", act));

// The keys of a slider, which no setting switches off.
slider.addEventListener("keydown", (event) => {
  const moves = {
    ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -15, PageUp: 15,
    Home: -Infinity, End: Infinity,
  };
  const by = moves[event.key] * (event.shiftKey ? 3 : 1);
  if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  step(by);
});

shortcuts({
  " ": toggle,
  k: toggle,
  ArrowLeft: () => step(-5),
  ArrowRight: () => step(5),
  "Shift+ArrowLeft": () => step(-15),
  "Shift+ArrowRight": () => step(15),
  "<": () => faster(-1),
  ">": () => faster(1),
  s: () => press(skip, !skipping()),
  a: () => mark("a"),
  b: () => mark("b"),
  c: unloop,
  1: () => sides.mute(0),
  2: () => sides.mute(1),
  i: () => marks.edge("from"),
  o: () => marks.edge("to"),
  l: link,
});

audio.controls = false;
audio.hidden = true;
player.querySelectorAll(".wave, .times, .controls").forEach((each) => (each.hidden = false));
load(Math.min(start, duration));
show();
tick();
draw().catch(() => over || tell(words.picture, null));
