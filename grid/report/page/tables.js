"use strict";
// Tables are sorted by a click on a header; figures as numbers, missing ones last.
function figure(cell) {
  const text = cell.dataset.figure;
  return text === undefined ? NaN : Number(text.replace("inf", "Infinity"));
}

function compare(first, second, numeric, sign) {
  if (numeric) {
    const [a, b] = [figure(first), figure(second)];
    return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b);
  }
  const [a, b] = [first.textContent.trim(), second.textContent.trim()];
  const [noA, noB] = [a === "" || a === "–", b === "" || b === "–"];
  return noA || noB ? noA - noB : sign * a.localeCompare(b, undefined, { numeric: true });
}

function sort(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const upward = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", upward ? "ascending" : "descending");
  const numeric = header.classList.contains("number");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(a.cells[column], b.cells[column], numeric, upward ? 1 : -1));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    if (!header.textContent.trim()) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header.cellIndex));
    header.append(button);
  }
}
