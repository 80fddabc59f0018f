// Parallel coordinates: an axis for each setting that differs and each result, a line for each run. Axes can be brushed.

import { h, s } from "./dom.js";
import { counted, number, safe, tick } from "./text.js";

const WIDTH = 960, HEIGHT = 260, TOP = 34, BOTTOM = 22, SIDE = 60, MOST_AXES = 12;

const INVERSE = (y) => (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM);

/**
 * Return the chart. `names`: id -> name of the run. Dragging along an axis brushes it: only the runs that pass all brushes
 * stay bright, and are named below; `chosen(ids)` hears of them. A click on an axis, or Escape, takes its brush away.
 * `brushes` holds them by the key of their axis, so that a chart that is drawn again has them still.
 */
export function coordinates(data, names, chosen, brushes = new Map()) {
  const axes = [...data.settings.slice(0, MOST_AXES - data.metrics.length).map((a) => scale(a, false)), ...data.metrics.map((a) => scale(a, true))];
  const ids = [...names.keys()].filter((id) => axes.some((axis) => axis.at(id) !== null));
  const result = axes.find((axis) => axis.result) || axes.at(-1), paths = new Map();
  const place = (i) => (axes.length > 1 ? SIDE + ((WIDTH - 2 * SIDE) * i) / (axes.length - 1) : WIDTH / 2);
  const box = s("svg", { class: "parallel", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": `Parallel coordinates of ${ids.length} runs over ${axes.map((a) => a.key).join(", ")}` });
  const tip = h("p", { class: "muted", role: "status" }), hint = `Colour: ${result.key}, from red (lowest) to blue (highest). Point at a line to see its run; drag along an axis to keep the runs that pass there.`;
  const passes = (id) => axes.every((axis) => { const [top, bottom] = brushes.get(axis.key) || [-Infinity, Infinity], y = axis.at(id); return y === null ? top === -Infinity : y >= top - 1 && y <= bottom + 1; });

  function brushed() {
    const kept = ids.filter(passes);
    for (const [id, path] of paths) path.classList.toggle("out", !passes(id));
    tip.textContent = brushes.size ? `${counted(kept.length, "run")} of ${ids.length}: ${kept.slice(0, 12).map((id) => safe(names.get(id))).join(", ")}${kept.length > 12 ? " ..." : ""}` : hint;
    chosen(brushes.size ? kept : ids);
  }

  for (const id of ids) {
    const points = axes.map((axis, i) => [place(i), axis.at(id)]).filter((p) => p[1] !== null);
    const end = result.at(id), tone = end === null ? "" : `p${Math.min(4, Math.floor(5 * INVERSE(end)))}`;
    const tell = () => { tip.textContent = `${safe(names.get(id))}: ${axes.map((a) => `${a.key} ${a.told(id)}`).join(" · ")}`; };
    const path = s("path", { class: `run ${tone}`, tabindex: "0", role: "link", "aria-label": `${safe(names.get(id))}: ${axes.map((a) => `${a.key} ${a.told(id)}`).join(", ")}`, d: points.map(([x, y], i) => (i ? `C${(x + points[i - 1][0]) / 2} ${points[i - 1][1]} ${(x + points[i - 1][0]) / 2} ${y} ${x} ${y}` : `M${x} ${y}`)).join(""), onpointerenter: tell, onfocus: tell, onclick: () => { location.hash = `#/run/${id}`; }, onkeydown: (event) => { if (event.key === "Enter") location.hash = `#/run/${id}`; } });
    paths.set(id, path);
    box.append(path);
  }
  axes.forEach((axis, i) => {
    box.append(s("line", { x1: place(i), x2: place(i), y1: TOP, y2: HEIGHT - BOTTOM, class: "axis" }),
      s("text", { x: place(i), y: i % 2 ? 12 : 24, "text-anchor": "middle", class: "title" }, safe(axis.key)));
    for (const [y, text] of axis.ticks()) box.append(s("text", { x: place(i) + 5, y: y + 3, class: "tick" }, safe(text).slice(0, 18)));
    box.append(...brush(axis, place(i)));
  });

  /** Return the brush of an axis and the strip that takes the pointer and the keys. */
  function brush(axis, x) {
    const mark = s("rect", { class: "brush", x: x - 6, width: 12, y: TOP, height: 0 });
    const strip = s("rect", { class: "strip", x: x - 10, width: 20, y: TOP - 6, height: HEIGHT - BOTTOM - TOP + 12, tabindex: "0", role: "slider", "aria-label": `Brush of ${safe(axis.key)}: arrows move it, Escape takes it away`, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "50" });
    const set = (a, b) => {
      const low = Math.max(TOP, Math.min(a, b)), high = Math.min(HEIGHT - BOTTOM, Math.max(a, b));
      if (high - low < 3) brushes.delete(axis.key); else brushes.set(axis.key, [low, high]);
      show();
      brushed();
    };
    const show = () => {
      const [from, to] = brushes.get(axis.key) || [TOP, TOP];
      mark.setAttribute("y", from);
      mark.setAttribute("height", to - from);
      strip.setAttribute("aria-valuenow", String(Math.round(100 * INVERSE((from + to) / 2))));
    };
    show();
    const at = (event) => { const frame = box.getBoundingClientRect(); return ((event.clientY - frame.top) * HEIGHT) / frame.height; };
    strip.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const from = at(event), move = (e) => set(from, at(e));
      strip.setPointerCapture(event.pointerId);
      strip.addEventListener("pointermove", move);
      strip.addEventListener("pointerup", (e) => { strip.removeEventListener("pointermove", move); set(from, at(e)); }, { once: true });
    });
    strip.addEventListener("keydown", (event) => {
      const [from, to] = brushes.get(axis.key) || [TOP, (TOP + HEIGHT - BOTTOM) / 2], by = (HEIGHT - TOP - BOTTOM) / 10;
      const keys = { ArrowUp: [from - by, to - by], ArrowDown: [from + by, to + by], Escape: [0, 0] };
      if (!keys[event.key]) return;
      event.preventDefault();
      set(...keys[event.key]);
    });
    return [mark, strip];
  }

  if (brushes.size) brushed();
  else tip.textContent = hint;
  return h("div", { class: "scroll" }, box, tip);
}

function scale(axis, metric) {
  const all = Object.values(axis.values).filter((v) => v !== null && v !== "");
  const numeric = metric || all.every((v) => v !== "" && Number.isFinite(Number(v)));
  const kinds = [...new Set(all)].sort();
  const values = all.map(Number), low = Math.min(...values), high = Math.max(...values);
  const log = numeric && low > 0 && high / low > 50;
  const share = (v) => (numeric ? (high > low ? (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low)) : 0.5) : kinds.length > 1 ? kinds.indexOf(v) / (kinds.length - 1) : 0.5);
  const y = (part) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part;
  const got = (id) => axis.values[id];
  return {
    key: axis.key,
    result: metric,
    at: (id) => (got(id) === null || got(id) === undefined || got(id) === "" ? null : y(share(numeric ? Number(got(id)) : got(id)))),
    told: (id) => (got(id) === null || got(id) === undefined ? "–" : metric ? number(got(id)) : got(id)),
    ticks: () => (numeric ? (high > low ? [[y(0), (metric ? number : tick)(low)], [y(1), (metric ? number : tick)(high)]] : [[y(0.5), (metric ? number : tick)(low)]]) : kinds.map((k) => [y(share(k)), k])),
  };
}
