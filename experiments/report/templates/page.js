"use strict";
// A cell whose details are asked for by its address opens.
function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  }
}
addEventListener("hashchange", reveal);
addEventListener("DOMContentLoaded", reveal);

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const numeric = heading.classList.contains("number");
      const value = (row) => {
        const cell = row.cells[column];
        return numeric ? cell.dataset.value : cell.textContent.trim();
      };
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (numeric && (a === "" || b === "")) return (a === "") - (b === ""); // the unknown last
        const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return descending ? -order : order;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}
