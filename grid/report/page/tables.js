"use strict";
// Tables are sorted by a click on a header; figures as numbers, missing ones last. Long ones have pages, whose further
// rows come in a template, a search for words and filters by what a column holds.
const MOST_CHOICES = 40;
const { compare: inOrder } = new Intl.Collator(undefined, { numeric: true });

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
  return noA || noB ? noA - noB : sign * inOrder(a, b);
}

function choice(cell) {
  return cell.dataset.choice ?? cell.textContent.trim();
}

class Rows {
  constructor(table) {
    this.table = table;
    this.body = table.tBodies[0];
    this.all = [...this.body.rows];
    this.size = Infinity;
    this.page = 0;
    this.tools = [];
    if (table.classList.contains("paged")) this.addPages(table.parentElement);
    this.found = this.all;
    for (const header of table.tHead.rows[0].cells) this.addSorting(header);
  }

  addSorting(header) {
    if (!header.textContent.trim()) return;
    const name = button("", () => this.sort(header));
    name.append(...header.childNodes);
    header.append(name);
  }

  addPages(frame) {
    this.size = this.all.length;
    this.all.push(...frame.nextElementSibling.content.children);
    this.search = element("input", { type: "search", placeholder: "words to search for", autocomplete: "off" });
    this.search.setAttribute("aria-label", "rows with all of these words");
    const headers = [...this.table.tHead.rows[0].cells];
    this.filters = headers.filter((one) => one.dataset.filter).map((one) => this.filter(one)).filter(Boolean);
    this.clear = button("show all", () => {
      for (const tool of [this.search, ...this.filters]) tool.value = "";
      this.find();
    });
    this.tools = element("div", { className: "tools" });
    this.tools.append(this.search, ...this.filters, this.clear);
    this.tools.addEventListener("input", () => this.find());
    this.said = element("span", {});
    this.said.setAttribute("role", "status");
    this.back = button("‹ back", () => this.turn(-1));
    this.next = button("next ›", () => this.turn(1));
    this.pages = element("div", { className: "pages" });
    this.pages.append(this.said, this.back, this.next);
    frame.before(this.tools, this.pages);
    this.find();
  }

  filter(header) {
    const names = new Set(this.all.map((row) => choice(row.cells[header.cellIndex])));
    if (names.size < 2 || names.size > MOST_CHOICES) return null;
    const one = element("select", { autocomplete: "off" });
    one.dataset.column = header.cellIndex;
    one.append(new Option(`${header.dataset.filter}: all`, ""));
    for (const name of [...names].sort(inOrder)) one.append(new Option(`${header.dataset.filter}: ${name}`, `=${name}`));
    return one;
  }

  find() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = this.filters.filter((one) => one.value).map((one) => [Number(one.dataset.column), one.value.slice(1)]);
    this.found = this.all.filter((row) =>
      asked.every(([column, name]) => choice(row.cells[column]) === name) &&
      words.every((word) => text(row).includes(word)));
    for (const one of this.filters) one.classList.toggle("chosen", one.value !== "");
    this.clear.disabled = !words.length && !asked.length;
    this.page = 0;
    this.show();
  }

  sort(header) {
    const upward = header.getAttribute("aria-sort") !== "ascending";
    for (const other of this.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", upward ? "ascending" : "descending");
    const [column, numeric] = [header.cellIndex, header.classList.contains("number")];
    const order = (a, b) => compare(a.cells[column], b.cells[column], numeric, upward ? 1 : -1);
    this.all.sort(order);
    if (this.found !== this.all) this.found.sort(order);
    this.page = 0;
    this.show();
  }

  turn(by) {
    this.page += by;
    this.show();
    this.table.parentElement.scrollTop = 0;
  }

  show() {
    const first = this.page ? this.page * this.size : 0;
    const rows = this.found.slice(first, first + this.size);
    this.body.replaceChildren(...rows);
    if (this.size === Infinity) return;
    const [of, all] = [this.found.length.toLocaleString("en"), this.all.length.toLocaleString("en")];
    const which = rows.length ? `rows ${first + 1} to ${first + rows.length} of ${of}` : "no row";
    this.said.textContent = this.found.length === this.all.length ? which : `${which} found; ${all} in all`;
    this.back.disabled = !this.page;
    this.next.disabled = first + rows.length >= this.found.length;
  }
}

const texts = new WeakMap();
function text(row) {
  if (!texts.has(row)) texts.set(row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  return texts.get(row);
}

function element(tag, given) {
  return Object.assign(document.createElement(tag), given);
}

function button(words, press) {
  const one = element("button", { type: "button", textContent: words });
  one.addEventListener("click", press);
  return one;
}

for (const table of document.querySelectorAll("table.sortable")) new Rows(table);
