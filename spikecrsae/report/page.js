"use strict";
// The page is whole without this script; it adds the theme, the choice of units and the order of tables.

const theme = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
theme.hidden = false;
theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "auto";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  theme.textContent = `Theme: ${next}`;
});

const units = [...document.querySelectorAll("article.unit")];
const chooser = document.getElementById("chooser");

function show(unit, shown) {
  unit.hidden = !shown;
  chooser.querySelector(`button[data-unit="${unit.dataset.unit}"]`).setAttribute("aria-pressed", String(shown));
}

if (chooser) {
  chooser.hidden = false;
  chooser.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const set = button.dataset.set;
    for (const unit of units) {
      if (set) show(unit, set === "all" || unit.dataset.label === set);
      else if (unit.dataset.unit === button.dataset.unit) show(unit, unit.hidden);
    }
  });
  // arrows lead from button to button, besides Tab
  chooser.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const buttons = [...chooser.querySelectorAll("button")];
    const next = buttons.indexOf(document.activeElement) + step;
    buttons[(next + buttons.length) % buttons.length].focus();
    event.preventDefault();
  });
}

// a link to a hidden unit shows it
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#unit-"]');
  const unit = link && document.getElementById(link.hash.slice(1));
  if (!unit) return;
  show(unit, true);
  unit.focus({ preventScroll: true });
});

function key(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b) {
  if (a === null || b === null) return null;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

for (const button of document.querySelectorAll("button.order")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = heading.closest("table");
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: key(row, heading.cellIndex) }));
    // what is not known comes last in either order
    rows.sort((a, b) => {
      const order = compare(a.value, b.value);
      return order === null ? (a.value === null) - (b.value === null) : up ? order : -order;
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  });
}
