// The list of runs: search, sort, filter, group, tags, and the choice of those to compare.

import { exported, get, post } from "./api.js";
import { choice, fill, h, keepingFocus, later, notice, sparkline, untouched } from "./dom.js";
import { age, counted, duration, number, safe } from "./text.js";

export const GLYPHS = { running: "●", paused: "‖", stalled: "!", finished: "✓", stopped: "■", crashed: "✕", recorded: "◇", damaged: "?" };
const SORTS = {
  age: (a, b) => b.last_word - a.last_word,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  reward: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity),
  step: (a, b) => b.step - a.step,
  state: (a, b) => Object.keys(GLYPHS).indexOf(a.state) - Object.keys(GLYPHS).indexOf(b.state),
  finding: (a, b) => rank(a) - rank(b),
};
const rank = (run) => ({ error: 0, warning: 1, info: 2 })[run.finding?.severity] ?? 3;
const view = { words: "", sort: "age", down: true, states: new Set(), group: "", chosen: new Set() };

/** Return the state of a run as a badge. */
export function badge(run) {
  return h("span", { class: `state ${run.state}`, title: run.detail || null }, h("span", { "aria-hidden": "true" }, GLYPHS[run.state] || "?"), run.state);
}

/** Return how far a run is. */
export function progress(run) {
  if (!run.steps) return h("span", { class: "steps" }, counted(run.step, "step"));
  const bar = h("progress", { max: run.steps, value: Math.min(run.step, run.steps), "aria-label": `${run.step} of ${run.steps} steps` });
  return h("span", { class: "steps" }, h("span", {}, `${run.step.toLocaleString("en-US")} / ${run.steps.toLocaleString("en-US")}`), bar);
}

/** Show the list. */
export async function runsPage(main) {
  document.title = "Runs · Ratchet board";
  let data = await get("runs");
  const body = h("div", { class: "runs" });
  const tools = h("div", { class: "tools" });
  const draw = () => keepingFocus(() => { drawTools(tools, data, draw); drawList(body, data, draw); });
  const count = h("span", { class: "muted" }, counted(data.runs.length, "run"));
  fill(main, h("div", { class: "title" }, h("h1", {}, safe(data.folder)), count), tools, body);
  draw();
  const again = later(async () => {
    try { data = await get("runs"); } catch (error) { return; }
    await untouched();
    fill(count, counted(data.runs.length, "run"));
    keepingFocus(() => { drawStates(tools.querySelector(".states"), data, draw); drawList(body, data, draw); });
  }, 300);
  const clock = setInterval(() => { for (const cell of body.querySelectorAll("[data-since]")) cell.textContent = age(Number(cell.dataset.since)); }, 5000);
  return { changed: again, leave: () => clearInterval(clock) };
}

function drawTools(tools, data, draw) {
  if (tools.childElementCount && document.activeElement?.closest(".tools") && tools.contains(document.activeElement) && document.activeElement.tagName === "INPUT") return drawStates(tools.querySelector(".states"), data, draw);
  const search = h("input", { type: "search", placeholder: "Search names, settings, tags", "aria-label": "Search runs", value: view.words, oninput: later((event) => { view.words = event.target.value; draw(); }, 120) });
  const group = choice("Group by", [{ value: "", label: "nothing" }, ...["study", "algorithm", "method", "framework", "state", "tags"].map((k) => ({ value: `.${k}`, label: k })), ...data.keys.map((k) => ({ value: k, label: k }))], view.group, (value) => { view.group = value; draw(); });
  const states = h("div", { class: "states", role: "group", "aria-label": "States" });
  fill(tools, search, states, group, sortChoice(draw), compareLink());
  drawStates(states, data, draw);
}

function sortChoice(draw) {
  const labels = { age: "last word", name: "name", reward: "reward", step: "step", state: "state", finding: "finding" };
  return choice("Sort by", Object.entries(labels).map(([value, label]) => ({ value, label })), view.sort, (value) => { view.sort = value; view.down = true; draw(); });
}

function drawStates(box, data, draw) {
  const counts = {};
  for (const run of data.runs) counts[run.state] = (counts[run.state] || 0) + 1;
  fill(box, Object.keys(GLYPHS).filter((state) => counts[state]).map((state) =>
    h("button", { type: "button", id: `state-${state}`, class: `chip ${state}`, "aria-pressed": String(view.states.has(state)), onclick: () => { view.states.has(state) ? view.states.delete(state) : view.states.add(state); draw(); } },
      h("span", { "aria-hidden": "true" }, GLYPHS[state]), ` ${state} `, h("b", {}, counts[state]))));
}

function compareLink() {
  const ids = [...view.chosen];
  const a = h("a", { class: "button primary compare", href: `#/compare?${ids.map((id) => `run=${id}`).join("&")}` }, ids.length ? `Compare ${ids.length}` : "Compare all");
  return a;
}

function matching(data) {
  const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = data.runs.filter((run) => {
    if (view.states.size && !view.states.has(run.state)) return false;
    const settings = Object.entries(run.settings).map(([k, v]) => `${k}=${v}`).join(" ");
    const text = `${run.name} ${run.study} ${run.algorithm} ${run.method} ${run.framework} ${run.state} ${run.tags.join(" ")} ${settings}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  kept.sort(SORTS[view.sort]);
  return view.down ? kept : kept.reverse();
}

function drawList(body, data, draw) {
  const runs = matching(data);
  if (!data.runs.length) return fill(body, empty(data));
  const groups = new Map();
  for (const run of runs) {
    const key = !view.group ? "" : view.group.startsWith(".") ? String(run[view.group.slice(1)] || "none") : run.settings[view.group] || "not set";
    groups.set(key, [...(groups.get(key) || []), run]);
  }
  const tables = [...groups].sort((a, b) => a[0].localeCompare(b[0], undefined, { numeric: true })).map(([key, rows]) => [
    view.group && h("h2", { class: "group" }, safe(`${view.group.replace(/^\./, "")} = ${key}`), h("span", { class: "muted" }, ` ${rows.length}`)),
    table(rows, draw),
  ]);
  fill(body, runs.length ? tables : h("p", { class: "empty" }, "No run fits. Clear the search or the states."), refused(data));
}

function empty(data) {
  return h("div", { class: "empty" }, h("h2", {}, "No runs here yet"), h("p", {}, "Train one, and it appears by itself: ", h("code", {}, "ratchet train judge")), refused(data));
}

function refused(data) {
  if (!data.refused.length) return null;
  return h("details", { class: "refused" }, h("summary", {}, `${counted(data.refused.length, "file")} left out: no log of reinforcement learning`),
    h("dl", {}, data.refused.map((file) => [h("dt", {}, safe(file.name)), h("dd", {}, safe(file.why))])));
}

function heading(label, sort, draw, extra = "") {
  const on = view.sort === sort;
  return h("th", { scope: "col", class: extra, "aria-sort": on ? (view.down ? "descending" : "ascending") : null },
    sort ? h("button", { type: "button", id: view.group ? null : `sort-${sort}`, class: "sort", onclick: () => { if (on) view.down = !view.down; else { view.sort = sort; view.down = true; } draw(); } }, label, h("span", { "aria-hidden": "true" }, on ? (view.down ? " ↓" : " ↑") : "")) : label);
}

function table(rows, draw) {
  return h("table", { class: "list" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Choose")), heading("State", "state", draw), heading("Run", "name", draw), heading("Step", "step", draw), heading("Reward", "reward", draw), heading("Finding", "finding", draw, "wide"), h("th", { scope: "col", class: "wide" }, "Tags"), heading("Last word", "age", draw, "end"))),
    h("tbody", {}, rows.map((run) => row(run, draw))));
}

function row(run, draw) {
  const check = h("input", { type: "checkbox", id: `choose-${run.id}`, "aria-label": `Choose ${safe(run.name)} to compare`, checked: view.chosen.has(run.id), onchange: (event) => { event.target.checked ? view.chosen.add(run.id) : view.chosen.delete(run.id); document.querySelector(".compare")?.replaceWith(compareLink()); } });
  const about = [run.study, run.method || run.algorithm || run.framework, run.seed === null ? "" : `seed ${run.seed}`].filter(Boolean).join(" · ");
  const spark = sparkline(run.spark.x, run.spark.y, `${run.reward_name}: now ${number(run.reward)}, best ${number(run.best)}`);
  const why = run.state === "running" ? run.waits.map((w) => `${w.owner} waits for ${w.cause}`).join("; ") : run.detail;
  return h("tr", {},
    h("td", { class: "check" }, check),
    h("td", { class: "stated" }, badge(run)),
    h("td", { class: "named" }, h("a", { href: `#/run/${run.id}`, id: `run-${run.id}` }, safe(run.name)), h("small", {}, safe(about)), why && h("small", { class: `why ${run.state}` }, safe(why)),
      run.finding && run.finding.severity !== "info" && h("a", { class: `finding narrow ${run.finding.severity}`, href: `#/run/${run.id}/doctor` }, safe(run.finding.sentence))),
    h("td", { class: "far" }, progress(run), run.step_s > 0 && run.state === "running" && run.steps > run.step && h("small", {}, `${duration((run.steps - run.step) * run.step_s)} left`)),
    h("td", { class: "reward" }, spark, h("span", { class: "value" }, number(run.reward))),
    h("td", { class: "wide found" }, run.finding ? h("a", { class: `finding ${run.finding.severity}`, title: safe(run.finding.sentence), href: `#/run/${run.id}/doctor` }, safe(run.finding.sentence)) : h("span", { class: "muted" }, "–")),
    h("td", { class: "wide tagged" }, run.tags.map((tag) => h("span", { class: "tag" }, safe(tag))), !exported && h("button", { type: "button", class: "plain small", id: `tag-${run.id}`, "aria-label": `Tags of ${safe(run.name)}`, onclick: () => edit(run, draw) }, "+")),
    h("td", { class: "end", title: run.last_word ? new Date(1000 * run.last_word).toLocaleString() : null }, h("span", { dataset: { since: run.last_word } }, age(run.last_word))));
}

function edit(run, draw) {
  const input = h("input", { type: "text", value: run.tags.join(", "), "aria-label": "Tags, separated by commas" });
  const dialog = h("dialog", { class: "small" }, h("form", { method: "dialog", onsubmit: async () => {
    try {
      run.tags = (await post(["runs", run.id, "tags"], { tags: input.value.split(",") })).tags;
      draw();
    } catch (error) { notice(error.message, "error"); }
  } }, h("h2", {}, "Tags"), h("p", { class: "muted" }, safe(run.name)), input, h("p", { class: "row" }, h("button", { class: "primary" }, "Save"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
