"use strict";
(() => {
  // Tables: a click on a column's name sorts by it, a second one the other way round.
  const valueOf = (cell) => {
    const given = cell.dataset.value;
    return given === undefined ? cell.textContent.trim() : Number(given);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true, sensitivity: "base" });
  };
  const missing = (value) => typeof value === "number" && Number.isNaN(value);
  const sort = (button) => {
    const head = button.closest("th");
    const place = [...head.parentNode.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    // numbers begin with the largest, names with A
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [valueOf(row.cells[place]), row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || sign * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => sort(button));
  }

  // Contents: open where there is room beside the text, and marking where one is.
  const contents = document.querySelector(".toc details");
  if (contents) {
    const wide = matchMedia("(min-width: 75rem)");
    const fit = () => { contents.open = wide.matches; };
    wide.addEventListener("change", fit);
    fit();
    const links = new Map();
    for (const link of contents.querySelectorAll("a")) links.set(link.hash.slice(1), link);
    contents.addEventListener("click", (event) => {
      if (event.target.closest("a") && !wide.matches) contents.open = false;
    });
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const section of document.querySelectorAll("main section")) seen.observe(section);
  }

  // Groups of pictures: all at once; and paper shows what is folded away on a screen.
  const groups = [...document.querySelectorAll("main details")];
  const all = document.querySelector(".open-all");
  if (all) {
    all.hidden = false;
    const button = all.querySelector("button");
    const own = groups.filter((group) => group.classList.contains("group"));
    button.addEventListener("click", () => {
      const open = button.textContent === "open all";
      for (const group of own) group.open = open;
      button.textContent = open ? "close all" : "open all";
    });
  }
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = groups.filter((group) => !group.open);
    for (const group of closed) group.open = true;
  });
  addEventListener("afterprint", () => { for (const group of closed) group.open = false; });
})();
