"use strict";
// Makes the headers of tables buttons that sort. Without this script every table stands as it is.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.value;
  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other) : a - b;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("n");
      const before = head.getAttribute("aria-sort");
      const down = before === null ? numbers : before === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const known = [...body.rows].filter((row) => key(row, column) !== undefined);
      const rest = [...body.rows].filter((row) => key(row, column) === undefined);
      known.sort((a, b) => (down ? -1 : 1) * compare(key(a, column), key(b, column)));
      body.append(...known, ...rest);
    });
  });
}
