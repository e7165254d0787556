// Single keys that do something, for whoever has not switched them off (WCAG 2.1.4).

const TYPED = "input:not([type=range], [type=checkbox], [type=radio]), select, textarea";

// `acts`: what each key does. Never while something is typed, never with a modifier but Shift.
export function shortcuts(acts) {
  if (!("shortcuts" in document.body.dataset)) return;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const at = event.target;
    if (at.closest(TYPED) || at.isContentEditable) return;
    // A button that has the focus is pressed by space and Enter as everywhere; a slider moves.
    if ((event.key === " " || event.key === "Enter") && at.closest("button, a, summary")) return;
    if (event.key.startsWith("Arrow") && at.closest("input")) return;
    const act = acts[(event.shiftKey && event.key.length > 1 ? "Shift+" : "") + event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
