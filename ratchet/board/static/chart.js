// One chart: uPlot with this page's colours, a linked crosshair and zoom, events on it, and keys for all of it.

import { h } from "./dom.js";
import { number, tick } from "./text.js";

const uPlot = globalThis.uPlot;
const RAW_POINTS = 400; // fewer points than this are drawn as dots when there is a smoothed line above them

/** What charts of one page share: the stretch that is zoomed to, where the keyboard put the crosshair, who wants to know. */
export function linked() {
  return { low: null, high: null, at: null, charts: new Set(), listeners: new Set(), key: `k${Math.random()}` };
}

/** Zoom all charts of a page; null for everything. */
export function zoom(link, low, high) {
  if (low !== null && !(high > low)) return;
  [link.low, link.high] = [low, high];
  for (const chart of link.charts) chart.show();
  for (const listener of link.listeners) listener();
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return a colour that can be told from the background of the theme. */
export function ink(colour, index = 0) {
  const dark = css("--dark") === "1";
  const lighter = { "#0072b2": "#58b4ee", "#c8321f": "#ff7d68", "#009e73": "#35cf9f", "#8b4fb3": "#c894ea", "#e68a00": "#f5b04c", "#d55e00": "#ff9550", "#cc79a7": "#e8a1c8", "#56b4e9": "#8fd0f6", "#e69f00": "#f0b93c", "#000000": "#dddddd", "#707070": "#a5a5a5" };
  const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8b4fb3", "#e69f00", "#56b4e9", "#000000"];
  const plain = (colour || palette[index % palette.length]).toLowerCase();
  return dark ? lighter[plain] || plain : plain;
}

/**
 * Make a chart. `spec`: title, lines [{label, colour, dash}], log, height, x_label, label, right (whether the last line has
 * its own axis on the right), unit, events, onevent, info (an element beside the title). Returns {element, data(lines, caption), show, remove}.
 */
export function makeChart(spec, link) {
  const value = h("span", { class: "readout", "aria-hidden": "true" });
  const plotBox = h("div", { class: "plot", tabindex: "0", role: "img", "aria-label": spec.title });
  const element = h("figure", { class: "chart" }, h("figcaption", {}, h("span", { class: "name" }, spec.title), spec.unit && h("span", { class: "unit" }, spec.unit), spec.info, value), plotBox);
  let plot = null, lines = [], width = 0;

  const xRange = () => (link.low === null ? whole(lines) : [link.low, link.high]);

  function draw() {
    plot?.destroy();
    plot = null;
    width = plotBox.clientWidth;
    if (!width || !lines.some((line) => line.x.length)) return;
    plot = new uPlot(options(), joined(lines), plotBox);
    plot.over.addEventListener("dblclick", () => zoom(link, null, null));
    plot.over.addEventListener("click", pickEvent);
    plot.over.addEventListener("wheel", wheel, { passive: false });
    plot.over.addEventListener("pointerdown", pan);
    plot.over.addEventListener("pointermove", () => { link.at = null; });
    point();
  }

  /** Put the crosshair where the keyboard has put it. */
  function point() {
    if (plot && link.at !== null) plot.setCursor({ left: plot.valToPos(link.at, "x"), top: 10 }, true, false);
  }

  /** Move the crosshair of all charts by some pixels of this one. */
  function step(pixels) {
    const from = link.at === null ? (xRange()[0] + xRange()[1]) / 2 : link.at;
    const left = Math.max(0, Math.min(plot.over.clientWidth, plot.valToPos(from, "x") + pixels));
    link.at = plot.posToVal(left, "x");
    for (const chart of link.charts) chart.point();
  }

  function options() {
    const grid = { stroke: css("--grid"), width: 1 };
    const font = `11px ${css("--sans")}`;
    const axis = { stroke: css("--muted"), font, grid, ticks: { show: false }, gap: 4 };
    const y = { ...axis, size: 52, values: (u, ticks) => ticks.map(tick) };
    return {
      width, height: spec.height || 190, padding: [10, spec.right ? 0 : 12, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: link.key, setSeries: false }, drag: { x: true, y: false, setScale: false, uni: 12 }, points: { size: 6 }, y: false, focus: { prox: -1 } },
      select: { show: true },
      scales: { x: { time: false, range: xRange }, y: { distr: spec.log ? 3 : 1, range: spec.log ? undefined : padded }, ...(spec.right ? { right: { range: padded } } : {}) },
      axes: [{ ...axis, size: 24, space: 60, values: (u, ticks) => ticks.map(tick), label: spec.x_label || null, labelSize: 15, labelFont: font, labelGap: 0 }, y,
        ...(spec.right ? [{ ...y, scale: "right", side: 1, grid: { show: false } }] : [])],
      series: [{}, ...lines.flatMap((line, i) => series(line, i))],
      bands: bands(lines),
      hooks: { setSelect: [selected], setCursor: [readout], draw: [drawEvents] },
    };
  }

  function series(line, i) {
    const stroke = ink(line.colour, i), scale = spec.right && i === lines.length - 1 ? "right" : "y";
    const faint = `${stroke}${css("--dark") === "1" ? "66" : "55"}`;
    const smoothed = line.sx && line.sx.length > 0;
    const made = [];
    if (smoothed && line.x.length <= RAW_POINTS) made.push({ scale, stroke: faint, width: 0, points: { show: true, size: 4, fill: faint, stroke: faint, width: 0 }, paths: () => null });
    else if (smoothed) made.push({ scale, stroke: faint, width: 1, points: { show: false } });
    made.push({ scale, stroke, width: 1.75, dash: line.dash, spanGaps: true, points: { show: line.x.length < 40 && !line.low, size: 5, fill: css("--surface"), width: 1.5 } });
    if (line.low) made.push({ scale, stroke: "transparent", width: 0, points: { show: false }, spanGaps: true }, { scale, stroke: "transparent", width: 0, points: { show: false }, spanGaps: true });
    return made;
  }

  function bands(all) {
    const found = [];
    let at = 1;
    all.forEach((line, i) => {
      const own = (line.sx && line.sx.length > 0 ? 2 : 1) + (line.low ? 2 : 0);
      if (line.low) found.push({ series: [at + own - 1, at + own - 2], fill: `${ink(line.colour, i)}26` });
      at += own;
    });
    return found;
  }

  function selected(u) {
    if (u.select.width < 4) return;
    const low = u.posToVal(u.select.left, "x"), high = u.posToVal(u.select.left + u.select.width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (u.cursor.event) zoom(link, low, high); // the linked charts are told by the zoom, not by the selection
  }

  function wheel(event) {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
    event.preventDefault();
    const [low, high] = xRange(), at = plot.posToVal(event.offsetX, "x"), move = event.deltaY || event.deltaX;
    if (event.shiftKey) return zoom(link, low + (high - low) * 0.0015 * move, high + (high - low) * 0.0015 * move);
    const factor = Math.exp(0.002 * move);
    zoom(link, at - (at - low) * factor, at + (high - at) * factor);
  }

  function pan(event) {
    if (!event.shiftKey || !plot) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const [low, high] = xRange(), from = event.clientX, per = (high - low) / plot.over.clientWidth;
    const move = (e) => zoom(link, low - (e.clientX - from) * per, high - (e.clientX - from) * per);
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", () => window.removeEventListener("pointermove", move), { once: true });
  }

  function readout(u) {
    const i = u.cursor.idx;
    if (i === null || i === undefined) return void (value.textContent = "");
    const x = u.data[0][i], told = [];
    let at = 1;
    lines.forEach((line, n) => {
      const smoothed = line.sx && line.sx.length > 0, row = u.data[at + (smoothed ? 1 : 0)];
      at += (smoothed ? 2 : 1) + (line.low ? 2 : 0);
      const v = nearest(row, i);
      if (v !== null) told.push(lines.length > 1 && n < 6 ? `${line.short || line.label} ${number(v)}` : number(v));
    });
    value.textContent = `${number(Math.round(x * 1000) / 1000)} : ${told.slice(0, 6).join("   ")}`;
  }

  function drawEvents(u) {
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    ctx.save();
    for (const event of spec.events || []) {
      const x = u.valToPos(event.at, "x", true);
      const end = event.to === undefined ? x : u.valToPos(event.to, "x", true);
      if (end < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
      ctx.strokeStyle = ctx.fillStyle = css(event.tone || "--muted");
      if (event.to !== undefined) {
        const from = Math.max(x, bbox.left), wide = Math.max(2 * ratio, Math.min(end, bbox.left + bbox.width) - from);
        ctx.globalAlpha = event.wash ? 0.9 : 0.3;
        ctx.fillRect(from, bbox.top - ratio, wide, 2.5 * ratio); // a bar on top says how long; a faint wash, that it is no mere information
        ctx.globalAlpha = event.wash ? 0.06 : 0;
        ctx.fillRect(from, bbox.top, wide, bbox.height);
        ctx.globalAlpha = 1;
      }
      if (x < bbox.left - 1) continue; // it began before what is in sight
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.beginPath();
      ctx.arc(x, bbox.top, 3.2 * ratio, 0, 7);
      ctx.fill();
    }
    ctx.restore();
  }

  function pickEvent(event) {
    if (!plot || !spec.onevent) return;
    const near = (spec.events || []).map((e) => [Math.abs(plot.valToPos(e.at, "x") - event.offsetX), e]).sort((a, b) => a[0] - b[0])[0];
    if (near && near[0] < 7) spec.onevent(near[1]);
  }

  plotBox.addEventListener("keydown", (event) => {
    if (!plot) return;
    const [low, high] = xRange(), middle = (low + high) / 2, pixels = Math.max(1, Math.round(plot.over.clientWidth / 60));
    const keys = {
      ArrowLeft: () => (event.shiftKey ? zoom(link, low - (high - low) / 8, high - (high - low) / 8) : step(-pixels)),
      ArrowRight: () => (event.shiftKey ? zoom(link, low + (high - low) / 8, high + (high - low) / 8) : step(pixels)),
      "+": () => zoom(link, middle - (high - low) / 4, middle + (high - low) / 4),
      "-": () => zoom(link, middle - (high - low), middle + (high - low)),
      0: () => zoom(link, null, null),
      Escape: () => zoom(link, null, null),
    };
    const act = keys[event.key === "=" ? "+" : event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const sizes = new ResizeObserver(() => {
    const now = plotBox.clientWidth;
    if (plot && now && now !== width) plot.setSize({ width: (width = now), height: spec.height || 190 });
    else if (!plot && now) draw();
  });
  sizes.observe(plotBox);
  window.addEventListener("theme", draw);

  const chart = {
    element,
    /** Draw other numbers. */
    data(next, caption) {
      const same = plot && next.length === lines.length && next.every((line, i) => shape(line) === shape(lines[i]));
      lines = next;
      plotBox.setAttribute("aria-label", caption || spec.title);
      plotBox.classList.toggle("none", !lines.some((line) => line.x.length));
      if (!same) return draw();
      plot.setData(joined(lines), true);
      point();
    },
    /** Show the stretch that the page is zoomed to. */
    show() { if (plot) { const [min, max] = xRange(); plot.setScale("x", { min, max }); } },
    point,
    set(changes) { Object.assign(spec, changes); draw(); },
    events(events) { spec.events = events; plot?.redraw(false); },
    remove() { plot?.destroy(); sizes.disconnect(); window.removeEventListener("theme", draw); link.charts.delete(chart); },
  };
  link.charts.add(chart);
  return chart;
}

const shape = (line) => `${line.sx?.length > 0}${line.low ? 1 : 0}${line.x.length < 40}${line.x.length <= RAW_POINTS}${line.colour}`;

function whole(lines) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) if (line.x.length) [low, high] = [Math.min(low, line.x[0]), Math.max(high, line.x.at(-1))];
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

function padded(u, low, high) {
  if (low === null) return [0, 1];
  const room = high > low ? 0.06 * (high - low) : Math.abs(low) * 0.1 || 1;
  return [low - room, high + room];
}

function nearest(row, i) {
  for (let d = 0; d < 40; d++) {
    if (row[i - d] !== null && row[i - d] !== undefined) return row[i - d];
    if (row[i + d] !== null && row[i + d] !== undefined) return row[i + d];
  }
  return null;
}

/** Return the table uPlot draws: one x for all lines, gaps where a line has no point. */
function joined(lines) {
  const tables = [];
  for (const line of lines) {
    tables.push([line.x, line.y]);
    if (line.sx?.length) tables.push([line.sx, line.sy]);
    if (line.low) tables.push([line.x, line.low], [line.x, line.high]);
  }
  return uPlot.join(tables.map((t) => [...t]), tables.map(() => [0, 1]));
}
