// The check of a certificate: what is dropped anywhere on the page goes into the form, and the form
// is sent. Without this the field alone takes a file, and the button sends it.

const form = document.querySelector("form.drop");
const field = form.querySelector("input[type=file]");

function over(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  form.toggleAttribute("data-over", true);
}

document.addEventListener("dragenter", over);
document.addEventListener("dragover", over);
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.removeAttribute("data-over");
});
document.addEventListener("drop", (event) => {
  form.removeAttribute("data-over");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  field.files = event.dataTransfer.files;
  form.requestSubmit();
});

document.querySelector("#verdict")?.focus();
