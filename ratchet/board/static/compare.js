// Several runs side by side: curves over each other, means and bands over seeds, settings that differ, coordinates.

import { exported, get } from "./api.js";
import { ink, linked, makeChart, zoom } from "./chart.js";
import { choice, fill, h, later, s, segments, untouched } from "./dom.js";
import { coordinates } from "./parallel.js";
import { badge } from "./runs.js";
import { counted, number, safe } from "./text.js";

const FIRST = ["reward/mean", "len/response/mean", "entropy", "kl/ref"];
const view = { axis: "step", smooth: "auto", seeds: "", log: false, metrics: [...FIRST] };

const DASHES = [undefined, [6, 3], [2, 3], [8, 3, 2, 3]];
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8b4fb3", "#e69f00", "#56b4e9", "#000000"];

/** Return the piece of line that stands for a curve in the legend: its colour and its dashes. */
function stroke(i) {
  const line = s("line", { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.5, "stroke-dasharray": (DASHES[Math.floor(i / 8) % 4] || []).join(" ") || null });
  line.style.stroke = ink("", i);
  return s("svg", { width: 26, height: 10, "aria-hidden": "true" }, line);
}

/** Show the comparison of the runs in the address; of all, if it names none. */
export async function comparePage(main) {
  document.title = "Compare · Ratchet board";
  const list = await get("runs");
  const asked = new URLSearchParams(location.hash.split("?")[1] || "").getAll("run");
  const named = new Map(list.runs.map((run) => [run.id, run.name]));
  const ids = (asked.length ? asked : [...named.keys()]).filter((id) => named.has(id)).slice(0, 60)
    .sort((a, b) => named.get(a).localeCompare(named.get(b), undefined, { numeric: true }));
  if (!ids.length) {
    fill(main, h("div", { class: "empty" }, h("h1", {}, "Nothing to compare"), h("p", {}, "Choose runs in the ", h("a", { href: "#/" }, "list"), ", then Compare.")));
    return { changed() {}, leave() {} };
  }
  const off = new Set(); // labels that were switched off in the legend
  const brushes = new Map();
  let kept = null; // ids that pass the brushes of the parallel coordinates; null for all
  const link = linked();
  const tools = h("div", { class: "tools sticky" }), legend = h("div", { class: "legend runs" }), charts = h("div", { class: "grid wide" }), below = h("div", {});
  fill(main, h("div", { class: "title" }, h("h1", {}, "Compare"), h("span", { class: "muted" }, counted(ids.length, "run"))), tools, legend, charts, below);
  let held = [];

  const load = async () => {
    const data = await get("compare", { run: ids, m: view.metrics, x: view.axis, smooth: view.smooth, seeds: view.seeds, points: 700 });
    await untouched();
    drawTools(data);
    draw(data);
  };
  const again = later(() => load().catch(() => {}), 500);

  function drawTools(data) {
    if (tools.contains(document.activeElement) && tools.childElementCount) return;
    const names = [...new Set([...view.metrics, ...(exported ? FIRST : data.names)])];
    const add = h("select", { "aria-label": "Add a metric", onchange: (event) => { if (event.target.value) { view.metrics.push(event.target.value); event.target.blur(); again(); } } }, h("option", { value: "" }, "Add a metric …"), names.filter((n) => !view.metrics.includes(n)).map((n) => h("option", { value: n }, safe(n))));
    fill(tools, segments("Curves", [{ value: "", label: "each run" }, { value: "mean", label: "mean over seeds" }], view.seeds, (value) => { view.seeds = value; document.activeElement?.blur(); again(); }),
      exported ? null : segments("x axis", data.axes.map((a) => ({ value: a, label: a })), view.axis, (value) => { view.axis = value; zoom(link, null, null); again(); }),
      exported ? null : choice("Smoothing", ["auto", "off", "11", "51"].map((v) => ({ value: v, label: v })), view.smooth, (value) => { view.smooth = value; again(); }),
      segments("y scale", [{ value: false, label: "linear" }, { value: true, label: "log" }], view.log, (value) => { view.log = value; for (const c of held) c.set({ log: value }); }),
      add);
  }

  function draw(data) {
    const names = new Map(data.runs.map((run) => [run.id, run.name]));
    const labels = [...new Set(data.charts.flatMap((c) => c.lines.map((line) => line.label)))];
    const title = (label) => safe(names.get(label) || label);
    kept = null;
    for (const chart of held) chart.remove();
    fill(legend, labels.map((label, i) => h("button", { type: "button", class: "chip", "aria-pressed": String(!off.has(label)), onclick: () => { off.has(label) ? off.delete(label) : off.add(label); draw(data); } }, stroke(i), title(label))));
    held = data.charts.map((chart) => {
      const metric = chart.metric;
      const drop = h("button", { type: "button", class: "plain small", "aria-label": `Remove ${safe(metric)}`, onclick: () => { view.metrics = view.metrics.filter((m) => m !== metric); again(); } }, "×");
      const made = makeChart({ title: safe(metric), unit: chart.unit, height: 240, log: view.log, x_label: data.x_label, info: drop }, link);
      charts.append(made.element);
      return made;
    });
    fill(charts, held.map((c) => c.element));
    const curves = () => data.charts.forEach((chart, i) => {
      const lines = chart.lines.filter((line) => !off.has(line.label) && (!kept || line.ids.some((id) => kept.has(id)))).map((line) => {
        const n = labels.indexOf(line.label);
        return { ...line, colour: COLOURS[n % 8], dash: DASHES[Math.floor(n / 8) % 4], label: title(line.label) };
      });
      held[i].data(lines, `${chart.metric}. ${lines.map((line) => `${line.label}: ${line.caption}`).join(" ")}`);
    });
    curves();
    drawBelow(data, names, later((ids) => { kept = ids.length < names.size ? new Set(ids) : null; curves(); }, 60));
  }

  function drawBelow(data, names, brushed) {
    const diff = data.differences;
    fill(below,
      data.runs.length > 1 && data.coordinates.settings.length ? h("section", {}, h("h2", {}, "Settings and results"), coordinates(data.coordinates, names, brushed, brushes)) : null,
      h("section", {}, h("h2", {}, "Where the settings differ"), diff.length ? h("div", { class: "scroll" }, h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), data.runs.map((run) => h("th", { scope: "col" }, h("a", { href: `#/run/${run.id}` }, safe(run.name)))))),
        h("tbody", {}, diff.map((row) => h("tr", {}, h("th", { scope: "row" }, safe(row.key)), data.runs.map((run) => h("td", {}, safe(row.values[run.id] ?? "–")))))))) : h("p", { class: "muted" }, "Nowhere, or there is only one run of ours.")),
      h("section", {}, h("h2", {}, "Where they are"), h("div", { class: "scroll" }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ["Run", "State", "Step", "Reward", "Best reward"].map((t, i) => h("th", { scope: "col", class: i > 1 ? "end" : null }, t)))),
        h("tbody", {}, data.runs.map((run) => h("tr", {}, h("th", { scope: "row" }, h("a", { href: `#/run/${run.id}` }, safe(run.name))), h("td", {}, badge(run)), h("td", { class: "end" }, number(run.step)), h("td", { class: "end" }, number(run.reward)), h("td", { class: "end" }, number(run.best)))))))));
  }

  await load();
  return { changed: (changed) => { if (changed === null || changed.some((id) => ids.includes(id))) again(); }, leave: () => { for (const chart of held) chart.remove(); } };
}
