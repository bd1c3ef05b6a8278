"use strict";
(() => {
  const table = document.getElementById("particles");
  if (table) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);
    const hits = document.getElementById("hits");
    const text = (row, column) => row.cells[column].textContent;
    const value = (row, column) => parseFloat(text(row, column).replace(/,/g, ""));
    const sort = (head) => {
      const column = heads.indexOf(head);
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const sign = up ? 1 : -1;
      rows.sort((a, b) => {
        const [s, t] = [text(a, column), text(b, column)];
        if (!s || !t) return (s ? 0 : 1) - (t ? 0 : 1); // empty cells last, whichever way
        const [x, y] = [value(a, column), value(b, column)];
        return sign * (isNaN(x) || isNaN(y) ? s.localeCompare(t) : x - y);
      });
      body.append(...rows);
    };
    heads.forEach((head) => {
      head.addEventListener("click", () => sort(head));
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head); });
    });
    document.getElementById("search").addEventListener("input", (event) => {
      const wanted = event.target.value.trim().toLowerCase();
      const number = wanted !== "" && !isNaN(wanted);
      let shown = 0;
      for (const row of rows) {
        const match = number ? text(row, 0) === wanted : row.textContent.toLowerCase().includes(wanted);
        row.hidden = !match;
        shown += match;
      }
      hits.textContent = wanted ? shown + " of " + rows.length : "";
    });
  }
  const zoom = document.getElementById("zoom");
  document.querySelectorAll("img.zoom").forEach((image) => image.addEventListener("click", () => {
    zoom.firstElementChild.src = image.src;
    zoom.firstElementChild.alt = image.alt;
    zoom.showModal();
  }));
  zoom.addEventListener("click", () => zoom.close());
})();
