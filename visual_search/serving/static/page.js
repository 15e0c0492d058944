// What HTML cannot do alone: pictures that are dropped or pasted, one request for every change,
// the focus after results were replaced. Without it the page's form and links still work.
(() => {
  "use strict";
  const form = document.getElementById("ask");
  const results = document.getElementById("results");
  const status = document.getElementById("status");
  const notice = document.getElementById("notice");
  const image = form.elements.namedItem("image");
  const item = form.elements.namedItem("item");
  const title = document.getElementById("drop-title");
  const maxBytes = Number(form.dataset.maxBytes);
  const narrow = window.matchMedia("(max-width: 48rem)");
  let wasInResults = false;

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

  function say(text) {
    notice.textContent = text;
  }

  function forgetPicture() {
    image.value = "";
    title.textContent = "Choose a picture";
  }

  function look() {
    say("");
    form.requestSubmit();
  }

  function usePicture(file) {
    if (!file.type.startsWith("image/")) {
      forgetPicture();
      say(`${file.name || "What was given"} is no picture. Give a JPEG, PNG, WebP, AVIF, GIF or BMP file.`);
      return;
    }
    if (file.size > maxBytes) {
      forgetPicture();
      say(`${file.name || "The picture"} has ${megabytes(file.size)}, more than ${megabytes(maxBytes)}. Save it smaller and try again.`);
      return;
    }
    if (image.files[0] !== file) {
      const carrier = new DataTransfer();
      carrier.items.add(file);
      image.files = carrier.files;
    }
    item.value = "";
    title.textContent = file.name || "Pasted picture";
    look();
  }

  form.addEventListener("change", (event) => {
    const field = event.target;
    if (field === image) {
      if (image.files.length) usePicture(image.files[0]);
      else forgetPicture();
    } else if (["checkbox", "number", "select-one"].includes(field.type)) {
      look();
    }
  });
  item.addEventListener("input", () => {
    if (item.value) forgetPicture();
  });

  const holdsFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
  let depth = 0; // dragenter and dragleave come for every element below
  window.addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    depth += 1;
    document.body.classList.add("dropping");
  });
  window.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (!depth) document.body.classList.remove("dropping");
  });
  window.addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  window.addEventListener("drop", (event) => {
    depth = 0;
    document.body.classList.remove("dropping");
    if (!holdsFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) usePicture(event.dataTransfer.files[0]);
  });
  window.addEventListener("paste", (event) => {
    const pasted = Array.from(event.clipboardData?.files ?? []).find((one) => one.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    usePicture(pasted);
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-clear-filters]");
    if (!link) return;
    event.preventDefault(); // the chosen picture would be lost with the page
    for (const box of form.querySelectorAll('input[name="where"]')) box.checked = false;
    look();
  });

  document.addEventListener("htmx:before:request", () => {
    wasInResults = results.contains(document.activeElement);
    say("");
  });
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.target.matches?.(".find")) return; // a filter's values, no results
    const outcome = results.querySelector(".outcome");
    if (!outcome) return;
    status.textContent = outcome.dataset.status;
    if (outcome.dataset.kind === "item") {
      forgetPicture();
      item.value = outcome.dataset.item;
    }
    if (wasInResults) { // what was clicked is gone: the keyboard goes on at the heading
      const heading = document.getElementById("heading");
      heading.focus({ preventScroll: true });
      heading.closest(".asked, .empty").scrollIntoView({ block: narrow.matches ? "start" : "nearest" });
      if (!narrow.matches) window.scrollTo(0, 0);
    } else if (narrow.matches && outcome.dataset.kind !== "none") {
      results.scrollIntoView({ block: "start" });
    }
  });
  document.addEventListener("htmx:error", () => {
    say("The server did not answer. Check that it is running, then try again.");
  });

  if (narrow.matches) form.querySelector(".filters")?.removeAttribute("open");
})();
