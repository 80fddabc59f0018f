// The rollouts of a run: choose a step, see its groups sorted by spread, open one, or search in all of them.

import { exported, get } from "./api.js";
import { rewardChip, showAttempt, stranger } from "./attempt.js";
import { fill, h, later } from "./dom.js";
import { counted, number, safe } from "./text.js";

/** Show the rollouts. */
export async function rolloutsTab(panel, run, rest) {
  let { steps, kept } = await get("runs", run.id, "steps");
  if (!steps.length) {
    fill(panel, h("p", { class: "empty" }, kept ? "No step is done yet." : "This run keeps no rollouts: record.rollouts = false."));
    return { changed: () => {} };
  }
  const list = h("div", { class: "pane side" }), detail = h("div", { class: "pane detail", tabindex: "-1" });
  const place = { step: steps.at(-1), index: null, attempt: null };
  const slider = h("input", { type: "range", min: 0, "aria-label": "Step", oninput: (event) => goStep(steps[Number(event.target.value)]) });
  const label = h("output", {});
  const words = h("input", { type: "search", placeholder: "Search in all rollouts", "aria-label": "Search in all rollouts", oninput: later(() => find(), 160) });
  const low = h("input", { type: "number", step: "any", placeholder: "reward ≥", "aria-label": "Least reward", oninput: later(() => find(), 250) });
  const high = h("input", { type: "number", step: "any", placeholder: "reward ≤", "aria-label": "Greatest reward", oninput: later(() => find(), 250) });
  const goStep = later((step) => { location.hash = `#/run/${run.id}/rollouts/${step}`; }, 60);
  const button = (text, name, by) => h("button", { type: "button", "aria-label": name, onclick: () => { const i = steps.indexOf(place.step) + by; if (steps[i] !== undefined) goStep(steps[i]); } }, text);

  fill(panel, h("div", { class: "tools sticky" },
    h("div", { class: "stepper" }, button("‹", "Step before", -1), slider, button("›", "Next step", 1), label),
    exported ? null : h("div", { class: "finder" }, words, low, high)), h("div", { class: "panes" }, list, detail));

  function drawStep() {
    slider.max = steps.length - 1;
    slider.value = steps.indexOf(place.step);
    fill(label, `step ${place.step}`, h("small", {}, ` of ${steps.at(-1)}`));
  }

  async function drawGroups() {
    drawStep();
    const step = place.step;
    fill(list, h("p", { class: "hint" }, "Loading ..."));
    const groups = await get("runs", run.id, "steps", step).catch((error) => ({ failed: error.message }));
    if (step !== place.step) return null;
    if (groups.failed) { fill(list, h("p", { class: "warn" }, groups.failed)); return null; }
    const values = groups.flatMap((g) => g.rewards).filter((r) => r !== null);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    fill(list, h("p", { class: "muted" }, `${counted(groups.length, "group")}, widest spread of rewards first`),
      h("ul", { class: "groups" }, groups.map((g) => h("li", {}, h("a", { href: `#/run/${run.id}/rollouts/${step}/${g.index}`, "aria-current": g.index === place.index ? "true" : null },
        h("span", { class: "prompt", dir: "auto" }, safe(g.prompt).slice(0, 160)),
        h("span", { class: "chips" }, [...g.rewards.keys()].sort((a, b) => (g.rewards[b] ?? -Infinity) - (g.rewards[a] ?? -Infinity)).slice(0, 16).map((i) => rewardChip(g.rewards[i], g.statuses[i], least, most)), g.rewards.length > 16 && h("small", {}, `+${g.rewards.length - 16}`)),
        h("small", {}, `task ${g.index} · spread ${number(g.spread)} · ${number(Math.round(g.tokens))} tokens${g.truncated ? ` · ${g.truncated} truncated` : ""}${g.agents ? ` · ${counted(g.agents, "agent")}` : ""}`))))));
    return groups;
  }

  async function drawGroup() {
    for (const a of list.querySelectorAll("a")) a.toggleAttribute("aria-current", a.getAttribute("href") === `#/run/${run.id}/rollouts/${place.step}/${place.index}`);
    const group = await get("runs", run.id, "steps", place.step, place.index).catch((error) => ({ failed: error.message }));
    if (group.failed) return fill(detail, h("p", { class: "warn" }, group.failed));
    const one = h("div", { class: "attempt" });
    const all = [...group.attempts, ...(group.greedy ? [group.greedy] : [])];
    const values = group.attempts.map((a) => a.reward).filter((r) => r !== null);
    if (place.attempt === null) place.attempt = all[0]?.attempt ?? null;
    fill(detail,
      h("div", { class: "title" }, h("h2", {}, `Task ${group.index}`), h("small", { class: "muted" }, `${safe(group.environment)} · ${group.task_id}`)),
      group.answer && group.answer !== "None" ? h("p", {}, h("b", {}, "Answer: "), h("span", { dir: "auto" }, stranger(group.answer))) : null,
      Object.keys(group.extras).length ? h("details", { class: "notes" }, h("summary", {}, `More about the task: ${Object.keys(group.extras).map(safe).join(", ")}`), h("dl", {}, Object.entries(group.extras).map(([k, v]) => [h("dt", {}, safe(k)), h("dd", {}, h("pre", {}, stranger(v)))]))) : null,
      h("nav", { class: "attempts", "aria-label": "Attempts, best first" }, all.map((a) => h("a", { href: `#/run/${run.id}/rollouts/${place.step}/${place.index}/${a.attempt < 0 ? "greedy" : a.attempt}`, "aria-current": a.attempt === place.attempt ? "true" : null },
        rewardChip(a.reward, a.status, Math.min(...values), Math.max(...values)), h("small", {}, a.attempt < 0 ? "greedy" : `#${a.attempt}`)))),
      one);
    if (place.attempt !== null) await showAttempt(one, run, group, place.attempt).catch((error) => fill(one, h("p", { class: "warn" }, error.message)));
  }

  async function find() {
    if (!words.value.trim() && !low.value && !high.value) return drawGroups();
    const asked = words.value;
    const found = await get("runs", run.id, "search", { q: asked, low: low.value, high: high.value }).catch((error) => ({ failed: error.message }));
    if (asked !== words.value) return;
    if (found.failed) return fill(list, h("p", { class: "warn" }, found.failed));
    const [done, all] = found.indexed;
    fill(list, h("p", { class: "muted" }, `${found.capped ? `${number(found.count)} or more` : number(found.count)} found in ${number(found.ms)} ms, newest first${found.newest ? `, among the newest ${number(found.newest)} that have the words` : ""}${done < all ? `; ${done} of ${all} steps are indexed so far` : ""}`),
      h("ul", { class: "groups" }, found.hits.map((hit) => h("li", {}, h("a", { href: `#/run/${run.id}/rollouts/${hit.step}/${hit.task}/${hit.attempt}` },
        h("span", { class: "prompt", dir: "auto" }, lit(hit.text || hit.prompt, asked)),
        h("span", { class: "chips" }, rewardChip(hit.reward, hit.status)), h("small", {}, `step ${hit.step} · task ${hit.task} · attempt ${hit.attempt} · ${counted(hit.tokens, "token")}`))))));
    if (done < all) setTimeout(() => { if (words.value === asked && list.isConnected) find(); }, 1500);
  }

  async function moved(parts) {
    const [step, index, attempt] = parts;
    const numbers = { step: step === undefined ? place.step : Number(step), index: index === undefined ? null : Number(index), attempt: attempt === undefined ? null : attempt === "greedy" ? -1 : Number(attempt) };
    const other = numbers.step !== place.step || !list.childElementCount;
    Object.assign(place, numbers);
    drawStep();
    let groups = null;
    if (other && !words.value.trim()) groups = await drawGroups();
    if (place.index === null && groups?.length) place.index = groups[0].index;
    if (place.index !== null) await drawGroup();
    if (index !== undefined && matchMedia("(max-width: 820px)").matches) detail.scrollIntoView({ block: "start" });
  }

  await moved(rest);
  return {
    moved,
    changed: later(async () => {
      const next = await get("runs", run.id, "steps").catch(() => null);
      if (next) steps = next.steps;
      drawStep();
    }, 500),
  };
}

/** Return a text with the words that were looked for marked. */
function lit(text, words) {
  const wanted = (words.match(/[\p{L}\p{N}_]+/gu) || []).map((w) => w.toLowerCase());
  return safe(text).split(/([\p{L}\p{N}_]+)/u).map((part) => (wanted.some((w) => part.toLowerCase().startsWith(w)) ? h("mark", {}, part) : part));
}
