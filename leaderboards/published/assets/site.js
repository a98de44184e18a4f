"use strict";
// Every control's state lives in the page's address (after #), so that a link shows what its sender saw.
const controls = document.getElementById("controls");
const search = document.getElementById("search");
const filters = [...controls.querySelectorAll("select")];
const boxes = [...controls.querySelectorAll("[data-column]")];
const many = 100;

// The pages' buttons do not scroll away with the table.
function beside(scroll, paging) {
  const below = document.createElement("div");
  below.className = "dt-container";
  below.append(paging);
  scroll.after(below);
}

const boards = [...document.querySelectorAll("table.board")].map((table) => {
  const section = table.closest("section");
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const paging = table.tBodies[0].rows.length > many;
  const layout = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: paging ? "paging" : null };
  const api = new DataTable(table, { paging, pageLength: many, info: false, order: [], autoWidth: false, layout });
  if (paging) beside(table.closest(".scroll"), api.table().container().querySelector(".dt-paging"));
  const values = api.rows().nodes().toArray().map((row) => ({ ...section.dataset, ...row.dataset }));
  api.search.fixed("filters", (text, data, index) => filters.every((f) => !f.value || values[index][f.dataset.filter] === f.value));
  return { section, headings, api };
});

function state() {
  const found = new URLSearchParams();
  if (search.value) found.set("search", search.value);
  for (const filter of filters) if (filter.value) found.set(filter.dataset.filter, filter.value);
  const hidden = boxes.filter((box) => !box.checked).map((box) => box.dataset.column);
  if (hidden.length) found.set("without", hidden.join("|"));
  if (sort) found.set("sort", sort);
  return found;
}

function remember() {
  const text = state().toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

let restoring = false;
let sort = ""; // "heading|asc" or "heading|desc", the same for all tables

function order(others) {
  const [heading, direction] = sort.split("|");
  for (const { headings, api } of others) {
    const column = headings.indexOf(heading);
    api.order(column < 0 ? [] : [[column, direction === "asc" ? "asc" : "desc"]]);
  }
}

function follow(board) {
  if (restoring) return;
  const [column, direction] = board.api.order()[0] ?? [];
  sort = direction ? `${board.headings[column]}|${direction}` : "";
  restoring = true;
  const others = boards.filter((other) => other !== board);
  order(others);
  for (const { api } of others) api.draw();
  restoring = false;
  remember();
}

function show() {
  const quiet = restoring;
  restoring = true; // drawing is no wish of the visitor's
  let rows = 0;
  for (const { section, headings, api } of boards) {
    headings.forEach((heading, i) => {
      const box = boxes.find((b) => b.dataset.column === heading);
      if (box && api.column(i).visible() !== box.checked) api.column(i).visible(box.checked, false);
    });
    api.search(search.value).draw();
    const count = api.rows({ search: "applied" }).count();
    section.hidden = count === 0;
    rows += count;
  }
  document.getElementById("count").textContent = `${rows} rows`;
  restoring = quiet;
  if (!restoring) remember();
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  restoring = true;
  search.value = wanted.get("search") ?? "";
  for (const filter of filters) {
    filter.value = wanted.get(filter.dataset.filter) ?? "";
    if (filter.selectedIndex < 0) filter.value = ""; // a value that no row has
  }
  const hidden = new Set((wanted.get("without") ?? "").split("|"));
  for (const box of boxes) box.checked = !hidden.has(box.dataset.column);
  sort = wanted.get("sort") ?? "";
  order(boards);
  show();
  restoring = false;
  remember();
}

// As no_formula of tables.py: behind what cannot be seen a sign, of whatever width, begins a formula.
const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const unseen = /^[\p{Cc}\p{Cf}\p{Mn}\p{Me}\p{Z}\u115f\u1160\u3164\uffa0]+/u;

function quoted(text) {
  const [first = ""] = text.replace(unseen, "");
  const safe = /^[=+\-@\u2212]/.test(first.normalize("NFKC")) && !number.test(text) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv() {
  const lines = [];
  for (const { section, headings, api } of boards) {
    if (section.hidden) continue;
    const shown = headings.map((_, i) => i).filter((i) => api.column(i).visible());
    lines.push(["Table", ...shown.map((i) => headings[i])].map(quoted).join(","));
    for (const row of api.rows({ search: "applied", order: "applied" }).indexes().toArray()) {
      const cells = shown.map((i) => api.cell(row, i).node().textContent.trim());
      lines.push([section.querySelector("h2").textContent, ...cells].map(quoted).join(","));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

document.getElementById("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `${document.querySelector("h1").textContent.trim().toLowerCase()}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
});
controls.addEventListener("input", show);
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("reset", () => setTimeout(() => { history.replaceState(null, "", location.pathname); restore(); }));
for (const board of boards) board.api.on("order", () => follow(board));
window.addEventListener("hashchange", restore);
controls.hidden = false;
restore();
