// The page of one run: its head, which says what it does now, and its tabs.

import { actMenu } from "./acts.js";
import { get } from "./api.js";
import { chartsTab } from "./curves.js";
import { fill, h, keepingFocus, later, notice, untouched } from "./dom.js";
import { rolloutsTab } from "./rollouts.js";
import { badge, progress } from "./runs.js";
import { configTab, doctorTab, eventsTab, ledgerTab } from "./tabs.js";
import { age, duration, number, safe } from "./text.js";

const TABS = [
  { name: "charts", label: "Charts", make: chartsTab },
  { name: "rollouts", label: "Rollouts", make: rolloutsTab, own: true },
  { name: "ledger", label: "Ledger", make: ledgerTab, own: true },
  { name: "doctor", label: "Doctor", make: doctorTab },
  { name: "events", label: "Events", make: eventsTab, own: true },
  { name: "config", label: "Config", make: configTab },
];

/** Show a run. */
export async function runPage(main, id, rest) {
  let run = await get("runs", id);
  const head = h("section", { class: "head", "aria-label": "State of the run" }), menu = h("span", { class: "acts" }), drawn = { acts: "" };
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": "Views of the run" });
  const panel = h("section", { class: "panel", role: "tabpanel", id: "panel", tabindex: "-1" });
  const tabs = TABS.filter((tab) => !tab.own || run.kind === "run");
  let open = null, tab = null;

  document.title = `${safe(run.name)} · Ratchet board`;
  fill(main, head, bar, panel);

  function drawBar() {
    fill(bar, tabs.map((t) => h("a", {
      role: "tab", id: `tab-${t.name}`, href: `#/run/${id}/${t.name}`, "aria-selected": String(t === tab), tabindex: t === tab ? "0" : "-1", "aria-controls": "panel",
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(tabs.indexOf(t) + step + tabs.length) % tabs.length];
        location.hash = `#/run/${id}/${next.name}`;
        setTimeout(() => bar.querySelector("[aria-selected=true]")?.focus());
      },
    }, t.label, t.name === "doctor" && run.findings.length ? h("span", { class: `count ${run.findings[0].severity}` }, run.findings.length) : null)));
  }

  async function show(parts) {
    const next = tabs.find((t) => t.name === parts[0]) || tabs[0];
    if (next === tab && open?.moved) return open.moved(parts.slice(1));
    open?.leave?.();
    tab = next;
    drawBar();
    fill(panel);
    try {
      open = await next.make(panel, run, parts.slice(1));
    } catch (error) {
      open = {};
      fill(panel, h("p", { class: "empty" }, error.message));
    }
  }

  const again = later(async () => {
    try {
      run = await get("runs", id);
    } catch (error) {
      return notice(error.message, "error");
    }
    await untouched();
    keepingFocus(drawAll);
    open?.changed?.(run);
  }, 250);

  function drawAll() {
    const acts = JSON.stringify([run.acts, run.checkpoints]);
    if (acts !== drawn.acts && !menu.querySelector("details[open]")) { // an open menu is not pulled away
      drawn.acts = acts;
      fill(menu, actMenu(run));
    }
    drawHead(head, run, menu);
    drawBar();
  }

  drawAll();
  await show(rest);
  const clock = setInterval(() => drawClock(head, run), 1000);
  return {
    changed: (ids) => { if (ids === null || ids.includes(id)) again(); },
    moved: show,
    leave: () => { clearInterval(clock); open?.leave?.(); },
  };
}

/** Draw the head around its menu, which stays in its place so that a focus or a click on it is not lost. */
function drawHead(head, run, menu) {
  const about = [run.study && `study ${run.study}`, run.method || run.framework, run.seed === null || run.seed === undefined ? "" : `seed ${run.seed}`];
  if (!menu.isConnected) fill(head, h("div", { class: "title" }, h("h1", {}, safe(run.name)), h("span", {}), menu), h("div", {}));
  const [title, rest] = head.children;
  fill(title.children[1], badge(run));
  fill(rest,
    h("p", { class: "about" }, about.filter(Boolean).map((text) => h("span", {}, safe(text))), run.tags.map((tag) => h("span", { class: "tag" }, safe(tag)))),
    h("dl", { class: "facts" },
      fact("Step", progress(run)),
      fact("Reward", h("b", {}, number(run.reward)), h("small", {}, ` best ${number(run.best)}`)),
      run.step_s > 0 && fact("A step takes", duration(run.step_s)),
      run.state === "running" && run.steps > run.step && run.step_s > 0 && fact("Left", duration((run.steps - run.step) * run.step_s)),
      fact("Last word", h("span", { class: "age" }, ago(run.last_word))),
      fact("Now", h("span", { class: `now ${run.state}` }))),
    run.unreadable > 0 && h("p", { class: "warn" }, `${run.unreadable} damaged lines of metrics.jsonl and events.jsonl were passed over.`));
  drawClock(head, run);
}

const ago = (time) => (/\d/.test(age(time)) ? `${age(time)} ago` : age(time));
const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function drawClock(head, run) {
  const now = Date.now() / 1000, place = head.querySelector(".now"), word = head.querySelector(".age");
  if (word) word.textContent = ago(run.last_word);
  if (!place) return;
  const waits = run.waits.map((w) => `${w.owner} waits for ${w.cause} (${duration(Math.max(0, now - w.since))})`).join("; ");
  place.textContent = safe(run.state === "running" ? waits || "busy" : [run.state === "recorded" ? "read from its log" : run.state, run.state === "paused" || run.state === "stalled" ? waits || run.detail : run.detail].filter(Boolean).join(": "));
}
