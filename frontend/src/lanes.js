// Volume and mute for each side. The audio goes through a mixer only once a side is changed: until
// then the element plays by itself, and starts as fast as it can.

export function lanes(player, audio) {
  const volumes = [...player.querySelectorAll("[data-volume]")];
  const mutes = [...player.querySelectorAll("[data-mute]")];
  let gains = null;

  function mixer() {
    const context = new AudioContext();
    const split = context.createChannelSplitter(2);
    const merge = context.createChannelMerger(2);
    context.createMediaElementSource(audio).connect(split);
    gains = volumes.map((_, side) => {
      const gain = context.createGain();
      split.connect(gain, side);
      // Each side is heard in both ears: one of them alone tires.
      gain.connect(merge, 0, 0);
      gain.connect(merge, 0, 1);
      return gain;
    });
    merge.connect(context.destination);
    audio.addEventListener("play", () => context.resume());
    context.resume();
  }

  const silent = (side) => mutes[side].getAttribute("aria-pressed") === "true";

  function apply() {
    const heard = volumes.map((each, side) => (silent(side) ? 0 : Number(each.value) / 100));
    player.dataset.heard = heard.join(" ");
    if (heard.length === 1) {
      audio.volume = heard[0];
      return;
    }
    if (!gains) mixer();
    heard.forEach((value, side) => (gains[side].gain.value = value));
  }

  function mute(side) {
    if (!mutes[side] || mutes[side].disabled) return;
    mutes[side].setAttribute("aria-pressed", !silent(side));
    apply();
  }

  volumes.forEach((each) => each.addEventListener("input", apply));
  mutes.forEach((each, side) => each.addEventListener("click", () => mute(side)));
  return { mute };
}
