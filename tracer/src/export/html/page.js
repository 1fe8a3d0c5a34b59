// Sorts and searches the sites, zooms and searches the flame graph. All of it is there without.
"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // Sites: a button in each heading sorts, first by what is most.
  const body = one(".sites tbody");
  const rows = body ? [...body.rows] : [];
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell.classList.contains("n")) return cell.textContent;
    const value = cell.querySelector("data");
    return value ? Number(value.value) : -Infinity;
  };
  const sort = (heading) => {
    const column = heading.cellIndex;
    const isNumber = heading.classList.contains("n");
    const first = isNumber ? "descending" : "ascending";
    const second = isNumber ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0));
    body.append(...keyed.map(([, row]) => row));
  };
  for (const heading of all(".sites thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading));
    heading.append(button);
  }

  // Flame graph: as wide as there is room, its boxes in percent, its letters as they are.
  const svg = one("#flame-graph");
  const frames = one("#frames");
  const boxes = all("#frames > g").map((g) => {
    const rect = g.querySelector("rect");
    const number = (name) => Number(rect.getAttribute(name));
    const title = g.querySelector("title").textContent;
    const name = title.slice(0, title.lastIndexOf(" ("));
    return { g, rect, text: g.querySelector("text"), title, name, x: number("fg:x"), w: number("fg:w"), y: number("y") };
  });
  // It stands above all others.
  const root = boxes.reduce((a, b) => (b.y < a.y ? b : a), boxes[0]);
  let zoomed = root;

  function draw() {
    const view = svg.getAttribute("viewBox").split(" ");
    const width = svg.clientWidth;
    view[2] = width;
    svg.setAttribute("viewBox", view.join(" "));
    svg.style.height = view[3] + "px";
    frames.setAttribute("width", width);
    const letter = letterWidth();
    for (const box of boxes) {
      const isOutside = box.y < zoomed.y;
      const isThere = box.x < zoomed.x + zoomed.w && box.x + box.w > zoomed.x;
      box.g.style.display = isThere ? "" : "none";
      if (!isThere) continue;
      const from = Math.max(box.x, zoomed.x);
      const to = Math.min(box.x + box.w, zoomed.x + zoomed.w);
      const left = (from - zoomed.x) / zoomed.w * 100;
      const share = (to - from) / zoomed.w * 100;
      box.g.classList.toggle("outside", isOutside);
      box.rect.setAttribute("x", left + "%");
      box.rect.setAttribute("width", share + "%");
      box.text.setAttribute("x", left + 300 / width + "%");
      const room = Math.floor((share / 100 * width - 6) / letter);
      box.text.textContent = room < 3 ? "" : box.name.length <= room ? box.name : box.name.slice(0, room - 1) + "…";
    }
  }
  function letterWidth() {
    const probe = document.createElementNS("http://www.w3.org/2000/svg", "text");
    probe.textContent = "m".repeat(20);
    svg.append(probe);
    const width = probe.getComputedTextLength() / 20;
    probe.remove();
    return width || 7;
  }
  if (svg) {
    svg.addEventListener("click", (event) => {
      const box = boxes.find((box) => box.g.contains(event.target));
      if (!box) return;
      zoomed = box === zoomed ? root : box;
      one("#flame-box").textContent = zoomed === root ? "" : zoomed.title;
      draw();
    });
    new ResizeObserver(draw).observe(svg.parentNode);
    addEventListener("beforeprint", draw);
  }

  // Search: the sites and the boxes in whose words the text is.
  const input = one("#find-text");
  const words = rows.map((row) => row.textContent.toLowerCase());
  const search = () => {
    const text = input.value.trim().toLowerCase();
    let found = 0;
    rows.forEach((row, i) => {
      row.hidden = !words[i].includes(text);
      found += row.hidden ? 0 : 1;
    });
    // Of boxes that stand on each other the widest counts.
    let end = 0;
    let covered = 0;
    for (const box of [...boxes].sort((a, b) => a.x - b.x || b.w - a.w)) {
      const isHit = text !== "" && box.name.toLowerCase().includes(text);
      box.g.classList.toggle("hit", isHit);
      if (isHit && box.x >= end) {
        covered += box.w;
        end = box.x + box.w;
      }
    }
    const share = root ? `, ${(100 * covered / root.w).toFixed(1)}% of the flame graph` : "";
    one("#find-result").textContent = text === "" ? "" : `${found} of ${rows.length} sites${share}`;
  };
  if (rows.length > 0) {
    input.addEventListener("input", search);
    one("#find").addEventListener("submit", (event) => event.preventDefault());
    one("#find").hidden = false;
  }
  for (const hint of all(".scripted")) hint.hidden = false;
})();
