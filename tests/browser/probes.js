// Looked at from inside a page: what a reader would see as broken. Each probe returns sentences; none means fine.
window.__probes = (() => {
  const shown = (element) => element.checkVisibility({
    contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true,
  });
  const clips = (style) => /auto|scroll|hidden|clip/.test(style.overflowX + style.overflowY);

  // Ancestors that cut off what stands outside of them; looked up once an element, for a page has thousands of texts.
  const cutters = (element, known) => {
    if (!element || element === document.body || element === document.documentElement) return [];
    if (!known.has(element)) {
      const above = cutters(element.parentElement, known);
      known.set(element, clips(getComputedStyle(element)) ? [element.getBoundingClientRect(), ...above] : above);
    }
    return known.get(element);
  };

  // The part of a rectangle that scrolling ancestors let through; null where nothing is left of it.
  const through = (rect, boxes) => {
    let { left, right, top, bottom } = rect;
    for (const box of boxes) {
      left = Math.max(left, box.left); right = Math.min(right, box.right);
      top = Math.max(top, box.top); bottom = Math.min(bottom, box.bottom);
    }
    return right - left > 1 && bottom - top > 1 ? { left, right, top, bottom } : null;
  };

  const texts = () => {
    const found = [], known = new Map(), range = document.createRange();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim() || parent.closest("svg, script, style, .skip, option") || !shown(parent)) continue;
      range.selectNodeContents(node);
      const boxes = cutters(parent, known);
      for (const rect of range.getClientRects()) {
        const seen = through(rect, boxes);
        if (seen) found.push({ ...seen, text: node.data.trim().slice(0, 50) });
      }
    }
    return found;
  };

  // Lines of text may touch; two that share half of their height and some of their width cover each other.
  const covered = (rects, where) => {
    const said = [];
    rects.sort((a, b) => a.top - b.top);
    rects.forEach((a, i) => {
      for (let j = i + 1; j < rects.length && rects[j].top < a.bottom; j++) {
        const b = rects[j];
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 3 && height > 0.5 * Math.min(a.bottom - a.top, b.bottom - b.top)) {
          said.push(`${where}: "${a.text}" and "${b.text}" cover each other (${width.toFixed(0)} px)`);
        }
      }
    });
    return said;
  };

  const layout = () => {
    const said = [], wide = window.innerWidth;
    const page = document.documentElement;
    if (page.scrollWidth > wide) said.push(`the page scrolls sideways: ${page.scrollWidth} of ${wide} px`);
    const rects = texts();
    for (const r of rects) {
      if (r.left < -1 || r.right > wide + 1) said.push(`"${r.text}" leaves the page: ${r.left} to ${r.right} of ${wide} px`);
    }
    said.push(...covered(rects, "text"));
    for (const element of document.body.querySelectorAll(":not(svg, svg *, select, option, input, bdi)")) {
      if (!/hidden|clip/.test(getComputedStyle(element).overflowX) || !shown(element)) continue;
      if (element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1) {
        said.push(`<${element.tagName.toLowerCase()} class="${element.className}"> cuts its content off`);
      }
    }
    return said;
  };

  // Drawings: no letter outside of the drawing, none on another.
  const drawings = () => {
    const said = [];
    for (const svg of document.querySelectorAll("svg[role=img]")) {
      if (!shown(svg)) continue;
      const box = svg.getBoundingClientRect(), rects = [];
      const name = (svg.closest("figure, section, [id]") || svg).id || "drawing";
      if (box.width < 40 || box.height < 40) said.push(`${name}: only ${box.width} x ${box.height} px`);
      for (const text of svg.querySelectorAll("text")) {
        const r = text.getBoundingClientRect(), label = text.textContent.trim();
        if (!label) continue;
        if (r.left < box.left - 2 || r.right > box.right + 2 || r.top < box.top - 2 || r.bottom > box.bottom + 2) {
          said.push(`${name}: "${label}" is cut off at the edge`);
        }
        const turned = /rotate\((?!-?0[ ,)])/.test(text.getAttribute("transform") || "") ||
          /rotate\((?!-?0[ ,)])/.test(text.style.transform || "");
        if (!turned) rects.push({ left: r.left, right: r.right, top: r.top, bottom: r.bottom, text: label });
      }
      said.push(...covered(rects, name));
    }
    return said;
  };

  const channel = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);

  // axe does not look into drawings: letters must stand out from the card they are drawn on.
  const contrast = (least) => {
    const said = new Set();
    for (const text of document.querySelectorAll("svg[role=img] text")) {
      if (!text.textContent.trim() || !shown(text)) continue;
      let up = text.closest("svg").parentElement, ground = [0, 0, 0, 0];
      for (; up && (ground.length === 4 && ground[3] === 0); up = up.parentElement) {
        ground = parse(getComputedStyle(up).backgroundColor);
      }
      const pair = [luminance(parse(getComputedStyle(text).fill)), luminance(ground)].sort((a, b) => b - a);
      const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
      if (ratio < least) said.add(`"${text.textContent.trim()}" has a contrast of ${ratio.toFixed(2)}`);
    }
    return [...said];
  };

  // On paper nothing scrolls: what would need to is cut off.
  const paper = () => {
    const said = layout().concat(drawings());
    for (const box of document.querySelectorAll(".scroll, table")) {
      if (shown(box) && box.getBoundingClientRect().right > window.innerWidth + 1) {
        said.push(`"${box.textContent.trim().slice(0, 40)}" is wider than the paper`);
      }
    }
    return said;
  };

  const STOPS = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const stops = () => [...document.querySelectorAll(STOPS)].filter((e) => shown(e) && !e.disabled && e.tabIndex >= 0);

  // Where the focus is now: its place among all stops, and what is wrong with how it shows.
  const focus = () => {
    const at = document.activeElement, said = [], style = getComputedStyle(at), box = at.getBoundingClientRect();
    const name = `<${at.tagName.toLowerCase()}> "${at.textContent.trim().slice(0, 40)}"`;
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) said.push(`${name}: focus does not show`);
    if (box.bottom <= 0 || box.top >= innerHeight || box.right <= 0 || box.left >= innerWidth) {
      said.push(`${name}: has the focus out of sight`);
    }
    return { place: stops().indexOf(at), body: at === document.body, said };
  };

  const words = () => {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (node.data.trim() && !node.parentElement.closest("script, style, [data-script-only]")) found.push(node.data.trim());
    }
    return found;
  };

  return { layout, drawings, contrast, paper, stops: () => stops().length, focus, words };
})();
