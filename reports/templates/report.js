"use strict";
// Two conveniences on a page that is whole without them: tables that sort, and ROC curves that can be read off.
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const percent = (value) => {
    const p = 100 * value;
    const digits = p === 0 || p >= 0.995 ? 1 : p >= 0.00995 ? 2 : 4;
    return (p === 0 ? "0" : p.toFixed(digits)) + " %";
  };

  const worth = (cell) => {
    const text = cell ? cell.textContent.trim() : "";
    const found = text.replace(/,(?=\d{3})/g, "").match(/^[+\u2212-]?\d+(\.\d+)?(e-?\d+)?/);
    return found ? [0, parseFloat(found[0].replace("\u2212", "-")), text] : [1, 0, text];
  };
  const compare = (a, b) => a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2]);
  for (const table of document.querySelectorAll("table.sortable, table.compare")) {
    const body = table.tBodies[0];
    const spans = [...body.rows].some((row) => [...row.cells].some((cell) => cell.colSpan > 1));
    if (body.rows.length < 2 || spans) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", className: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [worth(row.cells[column]), row]);
        rows.sort((a, b) => (down ? compare(b[0], a[0]) : compare(a[0], b[0])));
        body.append(...rows.map((pair) => pair[1]));
      });
    });
  }

  const space = "http://www.w3.org/2000/svg";
  for (const figure of document.querySelectorAll("figure[data-roc]")) {
    const { left, alpha, rates, lines } = JSON.parse(figure.dataset.roc);
    const svg = figure.querySelector("svg");
    const ground = svg && svg.querySelector('[id$="-patch_2"]');
    if (!ground || !lines.length) continue;
    const low = Math.log10(left);
    const guide = document.createElementNS(space, "line");
    guide.setAttribute("class", "roc-guide");
    svg.append(guide);

    const slider = make("input", { type: "range", id: figure.id + "-fpr" });
    Object.assign(slider, { min: low, max: 0, step: 0.01 });
    const label = make("label", { htmlFor: slider.id, textContent: "Operating point: false positive rate" });
    const list = make("output", { className: "roc-read", htmlFor: slider.id });
    const picks = make("p", { className: "roc-picks" });
    const at = (line, fpr) => {
      let index = -1;
      line.fpr.forEach((value, i) => { if (value <= fpr * (1 + 1e-9)) index = i; });
      return index;
    };
    const stand = (fpr) => {
      const box = ground.getBBox();
      const x = box.x + box.width * (1 - Math.log10(fpr) / low);
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", box.y], ["y2", box.y + box.height]]) {
        guide.setAttribute(name, value);
      }
      slider.value = Math.log10(fpr);
      slider.setAttribute("aria-valuetext", percent(fpr));
    };
    const show = (fpr) => {
      stand(fpr);
      list.replaceChildren(make("b", { textContent: "FPR " + percent(fpr) }));
      for (const line of lines) {
        const i = at(line, fpr);
        const text = i < 0 ? "no point" : `${percent(line.tpr[i])} (${percent(line.low[i])} to ${percent(line.high[i])})`;
        list.append(make("span", {}, make("i", { className: "dot dot-" + line.role }), ` ${line.role} ${text}`));
      }
    };
    const choices = [["of the plan", alpha], ...rates.map((f) => [percent(f), f])];
    for (const [name, fpr] of choices) {
      if (fpr < left || fpr > 1 || (name !== "of the plan" && fpr === alpha)) continue;
      const button = make("button", { type: "button", textContent: name });
      button.addEventListener("click", () => show(fpr));
      picks.append(button);
    }
    slider.addEventListener("input", () => show(10 ** slider.value));
    svg.addEventListener("pointermove", (event) => {
      const matrix = svg.getScreenCTM();
      if (!matrix) return;
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      const box = ground.getBBox();
      const share = (point.x - box.x) / box.width;
      if (share >= 0 && share <= 1) show(10 ** (low * (1 - share)));
    });
    const note = make("p", {
      className: "caption",
      textContent: "A read-out of the curve drawn, with its pointwise band; the verdict rests on the rate of the plan.",
    });
    figure.querySelector(".drawing").after(make("div", { className: "roc-control" }, label, slider, picks, list, note));
    // Until it is asked, the script shows no number: the page says all of them by itself.
    list.textContent = "Point at the curve, or move the slider.";
    stand(Math.min(1, Math.max(left, alpha)));
  }
})();
