// The charts of a run: the study's figure, then every metric in its group, drawn when it comes into sight.

import { exported, get } from "./api.js";
import { linked, makeChart, zoom } from "./chart.js";
import { choice, fill, h, later, notice, segments } from "./dom.js";
import { counted, quantity, safe, told } from "./text.js";

const DRAWN = { checkpoint: false, eval: false, start: false, gate: false, reward_probe: false, sandbox: false };
const TONES = { failed: "--bad", crashed: "--bad", resume: "--accent", config_changed: "--warn", note: "--violet", act: "--violet", rollback: "--warn", turned_back: "--accent", guard: "--warn", damaged_checkpoint: "--bad" };
const MOST_EVENTS = 40; // of one kind; more lines than this hide the curve, and the tab of events has them all
const how = { axis: "step", smooth: "auto", log: false, words: "", closed: new Set(["Counts and costs", "Time and memory"]) };

/** Show the charts. */
export async function chartsTab(panel, first) {
  let run = first;
  const link = linked();
  const charts = new Map(); // what is drawn: key -> {chart, names, panel}
  const waiting = new Set();
  const figure = h("div", { class: "figure" }), groups = h("div", {});
  const has = (name) => run.axes.some((axis) => axis.name === name);
  if (!how.chosen || !has(how.axis)) how.axis = has(run.figure_x) ? run.figure_x : "step";

  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const held = charts.get(entry.target.dataset.key);
      if (!held) continue;
      held.seen = entry.isIntersecting;
      if (held.seen && held.stale) ask(held);
    }
  }, { rootMargin: "300px" });

  const ask = (held) => { waiting.add(held); flush(); };
  const flush = later(async () => {
    const asked = [...waiting];
    waiting.clear();
    const first = asked.filter((held) => held.panel), rest = asked.filter((held) => !held.panel);
    if (first.length) await load(first); // the study's figure is what one looks at first
    for (let i = 0; i < rest.length; i += 12) await load(rest.slice(i, i + 12));
  }, 15);

  const series = (names, points) => get("runs", run.id, "series", { m: names, x: how.axis, smooth: how.smooth, points, from: link.low, to: link.high });

  // What the figure shows is asked for before anything is made, so that it is there when the charts are.
  const figureNames = [...new Set(run.figure.flatMap((plan) => [plan, plan.right].filter(Boolean).map((p) => p.metric)))];
  let early = figureNames.length ? { axis: how.axis, smooth: how.smooth, answer: series(figureNames, 1600) } : null;
  early?.answer.catch(() => {}); // told where it is awaited

  async function load(some) {
    for (const held of some) held.stale = false;
    const names = [...new Set(some.flatMap((held) => held.names))];
    if (!names.length) return;
    const panels = some.some((held) => held.panel);
    const ready = panels && early && early.axis === how.axis && early.smooth === how.smooth && link.low === null ? early.answer : null;
    if (panels) early = null;
    let found;
    try {
      found = await (ready || series(names, panels ? 1600 : 900));
    } catch (error) { return notice(error.message, "error"); }
    const by = new Map(found.map((series) => [series.name, series]));
    for (const held of some) held.draw(by);
  }

  const stale = () => { early = null; for (const held of charts.values()) { held.stale = true; if (held.seen) ask(held); } };
  const zoomed = later(() => { if (!exported) stale(); reset.hidden = link.low === null; }, 140);
  link.listeners.add(() => { reset.hidden = link.low === null; zoomed(); });

  function marks() {
    const counts = {};
    for (const event of run.events) counts[event.kind] = (counts[event.kind] || 0) + 1;
    const found = how.axis !== "step" ? [] : run.events.filter((e) => DRAWN[e.kind] !== false && counts[e.kind] <= MOST_EVENTS && e.step >= 0)
      .map((e) => ({ at: e.step, tone: TONES[e.kind] || "--muted", event: e }));
    return found;
  }

  const marksFor = (metric) => [...marks(), ...(how.axis !== "step" ? [] : run.findings.filter((f) => f.metric === metric)
    .map((f) => ({ at: f.first, to: f.last, tone: { error: "--bad", warning: "--warn", info: "--muted" }[f.severity], wash: f.severity !== "info", finding: f })))];
  const onevent = (mark) => { location.hash = mark.finding ? `#/run/${run.id}/doctor` : `#/run/${run.id}/events/${run.events.indexOf(mark.event)}`; };

  function add(key, spec, names, draw, panelOf) {
    const chart = makeChart({ ...spec, log: how.log, onevent }, link);
    const held = { chart, names, stale: true, seen: false, panel: panelOf, draw: (by) => draw(chart, by) };
    chart.element.dataset.key = key;
    charts.set(key, held);
    sight.observe(chart.element);
    return chart.element;
  }

  const axisLabel = () => run.axes.find((axis) => axis.name === how.axis)?.label || "Step";

  function drawFigure() {
    fill(figure, run.figure.map((plan, i) => {
      const plans = [plan, plan.right].filter(Boolean);
      return add(`figure ${i}`, { title: plan.title, unit: plans.length > 1 ? `${plan.label} · right: ${plan.right.label}` : unitOf(plan), height: 280, right: Boolean(plan.right), x_label: plan.x_label && how.axis === "step" ? plan.x_label : axisLabel(), events: marksFor(plan.metric), info: info(metricNamed(plan.metric)) },
        plans.map((p) => p.metric),
        (chart, by) => {
          const lines = plans.map((p) => scaled(by.get(p.metric), p));
          chart.data(lines, plans.map((p) => by.get(p.metric)?.caption).join(" "));
        }, true);
    }));
  }

  const metricNamed = (name) => run.sections.flatMap((s) => s.metrics).find((m) => m.name === name);

  function drawGroups() {
    const words = how.words.toLowerCase();
    fill(groups, run.sections.map((section) => {
      const metrics = section.metrics.filter((m) => !words || `${m.name} ${m.key || ""} ${m.meaning || ""}`.toLowerCase().includes(words));
      if (!metrics.length) return null;
      const grid = h("div", { class: "grid" });
      const fold = h("details", { class: "group", open: Boolean(words) || !how.closed.has(section.title), ontoggle: (event) => {
        if (!words) event.target.open ? how.closed.delete(section.title) : how.closed.add(section.title);
        if (event.target.open && !grid.childElementCount) fill(grid, metrics.map(small));
      } }, h("summary", {}, section.title, h("span", { class: "muted" }, ` ${metrics.length}`)), grid);
      if (fold.open) fill(grid, metrics.map(small));
      return fold;
    }));
    if (!groups.childElementCount) fill(groups, h("p", { class: "empty" }, run.sections.length ? "No metric fits these words." : "No step is done yet: the curves begin with the first one."));
  }

  const small = (metric) => add(metric.name, { title: safe(metric.name), unit: metric.unit, height: 150, events: marksFor(metric.name), info: info(metric) }, [metric.name],
    (chart, by) => { const series = by.get(metric.name); chart.data([{ ...series, label: metric.name, colour: "#0072b2" }], series.caption); });

  function redraw() {
    for (const held of charts.values()) held.chart.remove();
    charts.clear();
    waiting.clear();
    drawFigure();
    drawGroups();
  }

  const reset = h("button", { type: "button", class: "plain", hidden: true, onclick: () => zoom(link, null, null) }, "Show all");
  const tools = h("div", { class: "tools sticky" },
    h("input", { type: "search", placeholder: "Find a metric", "aria-label": "Find a metric", value: how.words, oninput: later((event) => { how.words = event.target.value; redraw(); }, 200) }),
    run.axes.length > 1 && segments("x axis", run.axes.map((axis) => ({ value: axis.name, label: axis.name })), how.axis, (value) => { [how.axis, how.chosen] = [value, true]; zoom(link, null, null); redraw(); }),
    choice("Smoothing", [["auto", "auto"], ["off", "off"], ...(exported ? [] : [["5", "5 steps"], ["11", "11 steps"], ["25", "25 steps"], ["51", "51 steps"], ["101", "101 steps"]])].map(([value, label]) => ({ value, label })), how.smooth, (value) => { how.smooth = value; stale(); }),
    segments("y scale", [{ value: false, label: "linear" }, { value: true, label: "log" }], how.log, (value) => { how.log = value; for (const held of charts.values()) held.chart.set({ log: value }); }),
    reset, h("span", { class: "hint keys" }, "Drag: zoom. Shift-drag: pan. Double click: all. Keys: arrows, +, −, 0."));
  fill(panel, tools, run.notes.length ? h("details", { class: "notes" }, h("summary", {}, `How this log was read: ${counted(run.notes.length, "note")}`), h("ul", {}, run.notes.map((n) => h("li", {}, safe(n))))) : null, figure, groups);
  redraw();

  const live = later(() => stale(), 80);
  return {
    changed(next) {
      const known = (r) => r.sections.map((s) => s.metrics.map((m) => m.name)).flat().join();
      const grown = known(next) !== known(run);
      run = next;
      if (grown) return redraw();
      for (const [key, held] of charts) held.chart.events(marksFor(key.startsWith("figure") ? held.names[0] : key));
      live();
    },
    leave() { sight.disconnect(); for (const held of charts.values()) held.chart.remove(); },
  };
}

/** Return what the label of the y axis says that the title does not: its unit, or all of it. */
function unitOf(plan) {
  const [name, unit] = plan.label.replace(/\)$/, "").split(" (");
  return plan.title.includes(name) ? unit : plan.label;
}

/** Return a line of the study's figure: in its colour, per cent where the figure says so. */
function scaled(series, plan) {
  const times = (values) => (plan.factor === 1 ? values : values.map((v) => (v === null ? null : v * plan.factor)));
  if (!series) return { x: [], y: [], label: plan.label };
  return { ...series, y: times(series.y), sy: times(series.sy), label: plan.label, short: plan.label.split(" (")[0], colour: plan.colour };
}

/** Return the button that says what a metric is: on hover, on focus, and on a click. */
function info(metric) {
  if (!metric) return null;
  const box = h("span", { class: "about-metric", role: "tooltip" }, h("b", {}, safe(metric.name)), h("span", { class: "last" }, `now ${quantity(metric.last, metric.unit)}, ${counted(metric.points, "point")}`),
    told(metric).map(([name, text]) => h("span", {}, name && h("i", {}, `${name}: `), safe(text))), !metric.meaning && h("span", {}, "The dictionary has no entry for this name."));
  return h("span", { class: "info" }, h("button", { type: "button", class: "plain small", "aria-label": `What ${safe(metric.name)} is: ${safe(metric.meaning || "no entry in the dictionary")}` }, "?"), box);
}
