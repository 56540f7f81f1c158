"use strict";
// On paper every table is open.
addEventListener("beforeprint", () => {
  for (const long of document.querySelectorAll("details")) long.open = true;
});
// Sorting and filtering for tables; the page is complete without it.
for (const table of document.querySelectorAll("table.tools")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const original = rows.slice();

  // The text of a cell as something to compare: numbers first, words next, empty cells last.
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (text === "" || text === "–") return [2, 0, ""];
    if (text === "exact") return [0, Infinity, text];
    const value = parseFloat(text.replaceAll("−", "-").replaceAll("\u202f", "").replace("∞", "Infinity"));
    return Number.isNaN(value) ? [1, 0, text] : [0, value, text];
  };
  const compare = (a, b) => Math.sign(a[1] - b[1]) || a[2].localeCompare(b[2], "en", { numeric: true });

  const sort = (header, column) => {
    const before = header.getAttribute("aria-sort");
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    if (before === "descending") { body.append(...original); return; }
    const sign = before === "ascending" ? -1 : 1;
    header.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => a[0] - b[0] || sign * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  };
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    header.classList.add("sorts");
    header.tabIndex = 0;
    header.addEventListener("click", () => sort(header, column));
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(header, column); }
    });
  });

  const bar = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  bar.className = "find";
  input.type = "search";
  input.placeholder = "Filter rows";
  input.setAttribute("aria-label", "Filter rows");
  count.setAttribute("aria-live", "polite");
  bar.append(input, count);
  table.parentElement.before(bar);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}
