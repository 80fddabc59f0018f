// One attempt: its conversation with coloured tokens, its reward, the agents it launched, and how it was answered before.

import { exported, get } from "./api.js";
import { diff } from "./diff.js";
import { choice, fill, h, s } from "./dom.js";
import { counted, duration, number, pieces, safe } from "./text.js";

const COLOURS = [["none", "nothing"], ["logprob", "log-probability"], ["advantage", "advantage"], ["difference", "trainer against sampler"], ["version", "version of the weights"]];
const LEVELS = [-0.05, -0.2, -0.5, -1, -1.7, -2.6, -4]; // nats; a token above the first is as good as certain
const APART = [0.003, 0.03, 0.3]; // nats: the token is 0.3 %, 3 %, a third more or less probable to the trainer
let colouring = "logprob";

/** Return a stranger's text as nodes: what cannot be seen is written out and marked. */
export function stranger(text) {
  return pieces(text).map(([part, marked]) => (marked ? h("span", { class: "marked" }, part) : part));
}

/** Return a reward as a chip whose lightness and number tell the same. */
export function rewardChip(reward, status, low = 0, high = 1) {
  if (reward === null) return h("span", { class: "chip failed", title: safe(status) }, safe(status));
  const level = high > low ? Math.round((4 * (reward - low)) / (high - low)) : 2;
  return h("span", { class: `reward r${Math.max(0, Math.min(4, level))}` }, number(reward));
}

/** Show an attempt. */
export async function showAttempt(box, run, group, number_) {
  fill(box, h("p", { class: "hint" }, "Loading ..."));
  const found = await get("runs", run.id, "steps", group.step, group.index, number_ < 0 ? "greedy" : number_);
  const body = h("div", { class: "conversation" });
  const tip = h("div", { class: "tip", hidden: true });
  const line = found.agents > 0 && found.timeline ? timeline(found.timeline) : null;
  const draw = () => {
    const agents = found.trajectories.map((t, i) => trajectory(t, i, found));
    fill(body, task(found), agents);
  };
  const legend = h("span", { class: "legend" });
  const drawLegend = () => fill(legend, legendOf(found));
  const measured = Object.entries(found.metrics), more = measured.filter(([, v]) => v === 0);
  const told = (pairs) => h("dl", { class: "facts small" }, pairs.map(([k, v]) => h("div", {}, h("dt", {}, safe(k)), h("dd", {}, number(v)))));
  const rows = [["Reward", found.reward === null ? safe(found.status) : number(found.reward)], ...Object.entries(found.parts).map(([k, v]) => [safe(k), number(v)]), ["Advantage", found.advantage === null ? "none" : number(found.advantage)], ["Tokens", number(found.tokens)], ["Ended by", safe(found.stop)], ["Took", duration(found.seconds)]];
  fill(box,
    h("div", { class: "title" }, h("h2", {}, found.attempt < 0 ? "Greedy attempt" : `Attempt ${found.attempt}`), h("code", {}, `${found.step}:${found.index}:${found.attempt}`), found.truncated && h("span", { class: "chip failed" }, "truncated")),
    found.error && h("p", { class: "warn" }, safe(found.error)),
    h("dl", { class: "facts small" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v)))),
    measured.length > more.length ? told(measured.filter(([, v]) => v !== 0)) : null, // a verdict is among them: the one that is not 0
    more.length ? h("details", { class: "notes" }, h("summary", {}, `${counted(more.length, "more number")}, all 0`), told(more)) : null,
    Object.keys(found.notes).length ? h("details", { class: "notes", open: true }, h("summary", {}, "What the environment noted"), h("dl", {}, Object.entries(found.notes).map(([k, v]) => [h("dt", {}, safe(k)), h("dd", {}, h("pre", {}, stranger(v)))]))) : null,
    h("div", { class: "tools" }, choice("Colour tokens by", COLOURS.map(([value, label]) => ({ value, label })), colouring, (value) => { colouring = value; draw(); drawLegend(); }), legend),
    line, body, tip,
    !exported && h("section", { class: "others" }, h("button", { type: "button", onclick: (event) => others(event.target.parentElement, run, group, found) }, "The same prompt at other steps")));
  draw();
  drawLegend();
  body.addEventListener("pointerover", (event) => point(event, tip, found));
  body.addEventListener("pointerleave", () => { tip.hidden = true; });
}

function task(found) {
  return found.prompt.map((m) => message(m.role, [h("div", { class: "text", dir: "auto" }, stranger(m.content))], "input"));
}

function message(role, content, kind, note) {
  return h("article", { class: `message ${kind}` }, h("header", {}, h("b", {}, safe(role)), note && h("small", {}, note)), content);
}

function trajectory(t, number_, found) {
  const parts = t.turns.flatMap((turn, i) => [
    turn.input && message(i ? "environment" : "asked", [h("div", { class: "text", dir: "auto" }, stranger(turn.input))], "input"),
    message(t.trainable ? "policy" : t.agent, [tokens(turn, number_, i, found)], t.trainable ? "output" : "output frozen",
      `${counted(turn.num_output, "token")}, version ${turn.version}${turn.last_version !== turn.version ? ` to ${turn.last_version}` : ""}, ${duration(turn.seconds).replaceAll(" ", "\u00a0")}${turn.stop === "length" ? ", cut off by the limit" : ""}`),
  ]);
  if (t.parent < 0) return parts;
  return h("details", { class: "agent" }, h("summary", {}, safe(t.agent), h("small", {}, ` launched in turn ${t.parent_turn + 1} · ${counted(t.turns.length, "turn")}${t.outcome ? ` · ${safe(t.outcome).replaceAll("_", " ")}` : ""}`), h("small", { class: "gist" }, safe(t.turns.at(-1)?.text ?? "").slice(0, 80))), parts);
}

function tokens(turn, number_, i, found) {
  const box = h("div", { class: "text tokens" });
  if (!turn.pieces.length) return fill(box, turn.text ? stranger(turn.text) : h("i", { class: "muted" }, "an empty answer"));
  turn.pieces.forEach((piece, n) => {
    const span = h("span", { class: `token ${level(turn, n, found)}`, dataset: { at: `${number_}.${i}.${n}` } }, stranger(piece));
    box.append(span);
  });
  const more = turn.num_output - turn.pieces.length;
  if (more > 0) box.append(h("i", { class: "muted" }, ` … and ${counted(more, "token")} more`));
  return box;
}

function level(turn, n, found) {
  if (colouring === "logprob" && turn.logprobs.length) {
    const value = turn.logprobs[n];
    return value === null ? "lx" : `l${LEVELS.filter((bound) => value < bound).length}`;
  }
  if (colouring === "advantage" && found.advantage !== null) {
    const size = Math.min(3, Math.ceil(Math.abs(found.advantage) / 0.75));
    return size === 0 ? "" : `${found.advantage > 0 ? "up" : "down"}${size}`;
  }
  if (colouring === "difference") {
    const value = turn.differences[n] ?? 0, size = APART.filter((bound) => Math.abs(value) >= bound).length;
    return size === 0 ? "" : `${value > 0 ? "up" : "down"}${size}`;
  }
  if (colouring === "version") return `v${versionOf(turn, n) % 6}`;
  return "";
}

function versionOf(turn, n) {
  let version = turn.version;
  for (const [place, next] of turn.switches) if (n >= place) version = next;
  return version;
}

function legendOf(found) {
  const turns = found.trajectories.flatMap((t) => t.turns);
  if (!found.spelt) return h("span", { class: "muted" }, "No checkpoint with a tokenizer is left, so the text is shown without tokens.");
  if (colouring === "logprob") {
    if (!turns.some((t) => t.logprobs.length)) return h("span", { class: "muted" }, "No log-probabilities were recorded.");
    return [h("small", {}, "certain"), LEVELS.map((_, i) => h("span", { class: `swatch token l${i + 1}` })), h("small", {}, "surprising (−4 nats or less)")];
  }
  if (colouring === "advantage") return [h("small", {}, found.advantage === null ? "no reward, so no advantage" : `(reward − mean of the group) / its spread: ${number(found.advantage)}, the same for every token`)];
  if (colouring === "difference") return apartLegend(found, turns);
  if (colouring === "version") return [...new Set(turns.flatMap((t) => [t.version, ...t.switches.map((x) => x[1])]))].sort((a, b) => a - b).map((v) => h("span", { class: `swatch wide token v${((v % 6) + 6) % 6}` }, v));
  return null;
}

/** Say what the colours of trainer against sampler mean here, or why there are none. */
function apartLegend(found, turns) {
  if (found.differences === "none") return h("span", { class: "muted" }, "Not recorded: the run is of an earlier version, or the step was never trained.");
  const known = turns.flatMap((t) => t.differences).filter((v) => v !== null);
  if (!known.length) return h("span", { class: "muted" }, "The step did not train on this attempt, so there is nothing to compare.");
  const sizes = known.map(Math.abs), mean = sizes.reduce((a, b) => a + b, 0) / sizes.length;
  const swatch = (way, i) => h("span", { class: `swatch token ${way}${i}` });
  return [h("small", {}, "less probable to the trainer"), [3, 2, 1].map((i) => swatch("down", i)), [1, 2, 3].map((i) => swatch("up", i)), h("small", {}, `more (from ${APART.join(", ")} nats on); here ${number(mean)} on average, ${number(sizes.reduce((a, b) => Math.max(a, b)))} at most`)];
}

function point(event, tip, found) {
  const token = event.target.closest?.(".token[data-at]");
  tip.hidden = !token;
  if (!token) return;
  const [t, i, n] = token.dataset.at.split(".").map(Number), turn = found.trajectories[t].turns[i], logprob = turn.logprobs[n], apart = turn.differences[n];
  fill(tip, h("b", {}, JSON.stringify(safe(turn.pieces[n]))), ` token ${turn.ids[n]}, place ${n}`, logprob === undefined || logprob === null ? "" : h("div", {}, `log-probability ${number(logprob)}, probability ${number(Math.exp(logprob))}`), apart === undefined || apart === null ? "" : h("div", {}, `trainer against sampler ${apart > 0 ? "+" : ""}${number(apart)}`), h("div", {}, `version ${versionOf(turn, n)}, ${turn.fingerprint}`));
  const at = token.getBoundingClientRect();
  tip.style.left = `${Math.min(at.left, innerWidth - 260)}px`;
  tip.style.top = `${at.bottom + 6}px`;
}

function timeline(line) {
  const end = Math.max(...line.bars.map((b) => b.end), 1e-9), height = Math.max(4, Math.min(16, 230 / line.lanes.length));
  const place = (x) => (940 * x) / end;
  const box = s("svg", { class: "timeline", viewBox: `0 0 960 ${height * line.lanes.length + 6}`, role: "img", "aria-label": safe(line.caption) });
  for (const bar of line.bars) {
    box.append(s("rect", { x: 10 + place(bar.begin), y: bar.lane * height + 1, width: Math.max(1.5, place(bar.end - bar.begin)), height: height - 2, rx: 2, class: `bar ${line.lanes[bar.lane].depth ? (["", "finished"].includes(line.lanes[bar.lane].outcome) ? "agent" : "lost") : "policy"}${bar.critical ? " critical" : ""}` },
      s("title", {}, `${safe(line.lanes[bar.lane].name)}: ${duration(bar.begin)} to ${duration(bar.end)}, ${bar.tokens} tokens`)));
  }
  const key = (tone, text) => h("span", {}, h("span", { class: `key ${tone}` }), text);
  return h("figure", { class: "agents" }, box, h("div", { class: "ends" }, h("small", {}, "0 s"), h("small", {}, duration(end))),
    h("div", { class: "legend wide" }, key("t0", "policy"), key("t2", "agent that finished"), key("t4", "agent that did not"), key("critical", "what the end waited for")),
    h("figcaption", { class: "muted" }, safe(line.caption).replaceAll("_", " ")));
}

async function others(section, run, group, found) {
  const answer = await get("runs", run.id, "tasks", group.task_id).catch((error) => ({ failed: error.message }));
  if (answer.failed) return fill(section, h("p", { class: "warn" }, answer.failed));
  const here = found.trajectories.filter((t) => t.trainable).flatMap((t) => t.turns.map((u) => u.text)).join("\n");
  const rest = answer.attempts.filter((a) => a.step !== found.step || a.attempt !== found.attempt);
  const view = h("div", { class: "diff" });
  const show = (value) => {
    const other = rest[Number(value)];
    fill(view, h("p", { class: "muted" }, `From step ${other.step}, attempt ${other.attempt}, `, rewardChip(other.reward, other.status), " to this one:"),
      h("div", { class: "text", dir: "auto" }, diff(other.text, here).map(([kind, text]) => (kind === "same" ? stranger(text) : h(kind === "new" ? "ins" : "del", {}, stranger(text))))));
  };
  const steps = new Set(answer.attempts.map((a) => a.step));
  const [done, all] = answer.indexed;
  fill(section, h("h3", {}, "The same prompt"), h("p", { class: "muted" }, `${counted(answer.attempts.length, "attempt")} at ${counted(steps.size, "step")}${done < all ? `; ${done} of ${all} steps are indexed so far` : ""}.`),
    rest.length ? [choice("Hold against", rest.map((a, i) => ({ value: String(i), label: `step ${a.step}, attempt ${a.attempt}: ${a.reward === null ? a.status : number(a.reward)}` })), "0", show), view] : h("p", {}, "It was asked only here."));
  if (rest.length) show("0");
}
