// Parallel coordinates: an axis for each setting that differs and each result, a line for each run. Axes can be brushed.

import { h, s } from "./dom.js";
import { number, safe } from "./text.js";

const WIDTH = 960, HEIGHT = 260, TOP = 34, BOTTOM = 22, SIDE = 60, MOST_AXES = 12;

/** Return the chart. `names`: id -> name of the run. */
export function coordinates(data, names) {
  const axes = [...data.settings.slice(0, MOST_AXES - data.metrics.length).map((a) => scale(a, false)), ...data.metrics.map((a) => scale(a, true))];
  const ids = [...names.keys()].filter((id) => axes.some((axis) => axis.at(id) !== null));
  const result = axes.at(-1);
  const place = (i) => (axes.length > 1 ? SIDE + ((WIDTH - 2 * SIDE) * i) / (axes.length - 1) : WIDTH / 2);
  const box = s("svg", { class: "parallel", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Parallel coordinates of ${ids.length} runs over ${axes.map((a) => a.key).join(", ")}` });
  const tip = h("p", { class: "muted", role: "status" }, "Point at a line to see its run.");
  for (const id of ids) {
    const points = axes.map((axis, i) => [place(i), axis.at(id)]).filter((p) => p[1] !== null);
    const end = result.at(id), tone = end === null ? "" : `p${Math.min(4, Math.floor(5 * (1 - (end - TOP) / (HEIGHT - TOP - BOTTOM))))}`;
    const tell = () => { tip.textContent = `${safe(names.get(id))}: ${axes.map((a) => `${a.key} ${a.told(id)}`).join(" · ")}`; };
    const path = s("path", { class: `run ${tone}`, tabindex: "0", "aria-label": safe(names.get(id)), d: points.map(([x, y], i) => (i ? `C${(x + points[i - 1][0]) / 2} ${points[i - 1][1]} ${(x + points[i - 1][0]) / 2} ${y} ${x} ${y}` : `M${x} ${y}`)).join(""), onpointerenter: tell, onfocus: tell, onclick: () => { location.hash = `#/run/${id}`; } });
    box.append(path);
  }
  axes.forEach((axis, i) => {
    box.append(s("line", { x1: place(i), x2: place(i), y1: TOP, y2: HEIGHT - BOTTOM, class: "axis" }),
      s("text", { x: place(i), y: i % 2 ? 12 : 24, "text-anchor": "middle", class: "title" }, safe(axis.key)));
    for (const [y, text] of axis.ticks()) box.append(s("text", { x: place(i) + 5, y: y + 3, class: "tick" }, safe(text).slice(0, 18)));
  });
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
    at: (id) => (got(id) === null || got(id) === undefined || got(id) === "" ? null : y(share(numeric ? Number(got(id)) : got(id)))),
    told: (id) => (got(id) === null || got(id) === undefined ? "–" : metric ? number(got(id)) : got(id)),
    ticks: () => (numeric ? (high > low ? [[y(0), number(low)], [y(1), number(high)]] : [[y(0.5), number(low)]]) : kinds.map((k) => [y(share(k)), k])),
  };
}
