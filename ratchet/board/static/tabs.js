// The quieter tabs of a run: ledger, doctor, events, config.

import { get } from "./api.js";
import { fill, h, later } from "./dom.js";
import { clock, counted, duration, number, quantity, safe } from "./text.js";

const TONES = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];

/** Show where every prompt, attempt, token and second went. */
export async function ledgerTab(panel, run) {
  async function draw() {
    const found = await get("runs", run.id, "ledger");
    fill(panel, found.books.length ? null : h("p", { class: "empty" }, "No step is done yet."), h("div", { class: "books" }, found.books.map(book), found.time.spent.length ? seconds(found.time) : null));
  }
  await draw();
  return { changed: later(() => draw().catch(() => {}), 600) };
}

function book(found) {
  const closes = found.asked === null || Math.abs(found.asked - found.total) < 0.5;
  const verdict = found.asked === null ? "" : closes ? `Adds up to ${found.against}: ${quantity(found.total, found.unit)}.` : `Does not add up: ${quantity(found.total, "")} of ${quantity(found.asked, found.unit)} are accounted for.`;
  return h("section", { class: "book" }, h("h2", {}, found.title),
    verdict && h("p", { class: closes ? "ok" : "warn" }, h("span", { "aria-hidden": "true" }, closes ? "✓ " : "! "), verdict),
    stack(found.fates.map((f) => ({ label: f.fate, share: f.share })), `${found.title}: ${found.fates.map((f) => `${f.fate} ${number(100 * f.share)} per cent`).join(", ")}`),
    h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Fate"), h("th", { scope: "col", class: "end" }, found.unit), h("th", { scope: "col", class: "end" }, "Share"))),
      h("tbody", {}, found.fates.map((f, i) => h("tr", {}, h("th", { scope: "row" }, h("span", { class: `key ${TONES[i % TONES.length]}` }), safe(f.fate).replaceAll("_", " ")), h("td", { class: "end" }, number(f.count)), h("td", { class: "end" }, quantity(f.share, "share")))))));
}

function stack(parts, label) {
  return h("div", { class: "stack", role: "img", "aria-label": label }, parts.map((p, i) => h("span", { class: TONES[i % TONES.length], title: `${safe(p.label)}: ${quantity(p.share, "share")}`, style: { "flex-grow": String(Math.max(p.share, 0.001)) } })));
}

/** Return the name of a time as people say it: explorer waits for training. */
function spoken(name) {
  return { "time/explore": "exploring", "time/train": "training" }[name] || name.replace(/^(wait|time)\//, "").replace("_for_", " waits for ").replaceAll("_", " ");
}

function seconds(time) {
  const total = time.spent.reduce((sum, part) => sum + part.seconds, 0) || 1;
  const rows = [...time.spent, ...time.waits];
  return h("section", { class: "book" }, h("h2", {}, "Time"), h("p", { class: "muted" }, "Exploring and training, and within them the waits by owner and cause."),
    stack(time.spent.map((p) => ({ label: spoken(p.name), share: p.seconds / total })), time.spent.map((p) => `${spoken(p.name)} ${duration(p.seconds)}`).join(", ")),
    h("table", { class: "plain" }, h("tbody", {}, rows.map((r, i) => h("tr", {}, h("th", { scope: "row" }, i < time.spent.length ? h("span", { class: `key ${TONES[i]}` }) : h("span", { class: "key none" }), safe(spoken(r.name))), h("td", { class: "end" }, duration(r.seconds)), h("td", { class: "end" }, quantity(r.seconds / total, "share")))))));
}

/** Show what a diagnosis found, worst first. */
export async function doctorTab(panel, run) {
  const draw = (now) => fill(panel, verdict(now), now.findings.map((f) => card(f, now)));
  draw(run);
  return { changed: draw };
}

function verdict(run) {
  const { given, done, failed } = run.diagnosed;
  if (!given) return h("p", { class: "empty" }, "This board was started without a diagnosis, so there are no findings to show.");
  if (failed) return h("p", { class: "warn" }, `It could not be diagnosed: ${safe(failed)}`);
  if (!done) return h("p", { class: "hint" }, "Being diagnosed ...");
  return run.findings.length ? h("p", { class: "muted" }, counted(run.findings.length, "finding")) : h("p", { class: "empty" }, "Nothing was found.");
}

function card(found, run) {
  const span = found.first === found.last ? `step ${found.first}` : `steps ${found.first} to ${found.last}`;
  const list = (title, items) => (items.length ? [h("h3", {}, title), h("ul", {}, items.map((item) => h("li", {}, safe(item))))] : []);
  return h("article", { class: `card ${found.severity}` },
    h("h2", {}, h("span", { class: `finding ${found.severity}` }, found.severity), safe(found.sentence)),
    h("p", { class: "muted" }, [found.rule, found.metric, span].filter(Boolean).map(safe).join(" · ")),
    found.causes.length ? [h("h3", {}, "Likely causes"), h("ol", {}, found.causes.map((c) => h("li", {}, safe(c.text), c.evidence.length ? h("ul", { class: "evidence" }, c.evidence.map((e) => h("li", {}, safe(e)))) : null)))] : null,
    list("Check", found.check), list("Change", found.change),
    found.sources.length ? h("p", { class: "muted" }, "Source: ", safe(found.sources.join("; "))) : null,
    found.rollouts.length ? h("p", {}, "Rollouts that show it: ", found.rollouts.map((name) => { const [step, task, attempt] = name.split(":"); return [h("a", { href: `#/run/${run.id}/rollouts/${step}/${task}/${attempt}` }, safe(name)), " "]; })) : null);
}

/** Show all events, newest first; the one in the address is open. */
export async function eventsTab(panel, run, rest) {
  let kind = "";
  function draw(now, open) {
    const kinds = [...new Set(now.events.map((e) => e.kind))].sort();
    const rows = now.events.map((e, i) => [e, i]).filter(([e]) => !kind || e.kind === kind).reverse();
    fill(panel, h("div", { class: "tools" }, h("label", { class: "field" }, h("span", {}, "Kind"), h("select", { onchange: (event) => { kind = event.target.value; draw(now, -1); } }, ["", ...kinds].map((k) => h("option", { value: k, selected: k === kind }, k ? safe(k) : "all")))), h("span", { class: "muted" }, counted(rows.length, "event"))),
      h("ol", { class: "events" }, rows.slice(0, 1000).map(([e, i]) => h("li", {}, h("details", { open: i === open, id: `event-${i}` }, h("summary", {}, h("span", { class: "kind" }, safe(e.kind)), h("span", { class: "at" }, `step ${e.step}`), h("time", {}, e.time ? clock(e.time) : ""), h("span", { class: "gist" }, safe(gist(e)))), h("pre", {}, safe(JSON.stringify(e, null, 2))))))));
    if (open >= 0) document.getElementById(`event-${open}`)?.scrollIntoView({ block: "center" });
  }
  draw(run, rest.length ? Number(rest[0]) : -1);
  let shown = run.events.length;
  return {
    changed: (now) => { run = now; if (now.events.length !== shown) { shown = now.events.length; draw(now, -1); } },
    moved: (parts) => draw(run, parts.length ? Number(parts[0]) : -1),
  };
}

function gist(event) {
  const facts = Object.entries(event).filter(([k, v]) => !["kind", "step", "time"].includes(k) && ["string", "number", "boolean"].includes(typeof v));
  return facts.slice(0, 4).map(([k, v]) => `${k} ${typeof v === "number" ? number(v) : v}`).join(" · ").slice(0, 160);
}

/** Show config, plan, machine. */
export async function configTab(panel, run) {
  const words = h("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: later(() => draw(), 120) });
  const body = h("div", {});
  function draw() {
    const asked = words.value.toLowerCase();
    const fits = ([k, v]) => !asked || `${k} ${v}`.toLowerCase().includes(asked);
    fill(body, sheet("Settings", Object.entries(run.settings).filter(fits)), sheet("Plan", flat(run.plan).filter(fits)), sheet("Machine and versions", flat(run.environment).filter(fits)), run.notes.length ? [h("h2", {}, "How this log was read"), h("ul", {}, run.notes.map((n) => h("li", {}, safe(n))))] : null);
  }
  fill(panel, h("div", { class: "tools" }, words), body);
  draw();
  return {};
}

function sheet(title, rows) {
  if (!rows.length) return null;
  return h("section", {}, h("h2", {}, title), h("table", { class: "plain settings" }, h("tbody", {}, rows.map(([k, v]) => h("tr", {}, h("th", { scope: "row" }, safe(k)), h("td", {}, safe(v)))))));
}

function flat(tree, prefix = "") {
  return Object.entries(tree).flatMap(([k, v]) => (v !== null && typeof v === "object" && !Array.isArray(v) ? flat(v, `${prefix}${k}.`) : [[`${prefix}${k}`, typeof v === "number" ? number(v) : Array.isArray(v) ? v.join(", ") : String(v)]]));
}
