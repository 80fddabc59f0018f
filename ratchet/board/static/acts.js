// Asking something of a run that is going on on this machine: each act is confirmed first, and becomes an event of the run.

import { exported, post } from "./api.js";
import { h, notice } from "./dom.js";
import { safe } from "./text.js";

const ACTS = {
  pause: { label: "Pause", sure: "The step in progress is finished, then the run waits until you let it go on. Its process stays." },
  go_on: { label: "Go on", sure: "The run goes on with its next step." },
  checkpoint: { label: "Checkpoint now", sure: "A checkpoint is written before the next step." },
  stop: { label: "Stop", sure: "The step in progress is finished, a checkpoint is written, and the process ends. Go on later with: ratchet resume", bad: true },
  roll_back: { label: "Roll back …", sure: "The run goes on from the checkpoint you choose. Steps after it count no longer, and their checkpoints are removed; their numbers stay in the files.", bad: true },
  note: { label: "Note …", sure: "The sentence becomes an event of the run, at the step it is at." },
};

/** Return the menu of what may be asked; nothing for runs that cannot be asked. */
export function actMenu(run) {
  if (exported || !run.acts.length) return null;
  return h("details", { class: "menu" }, h("summary", { class: "button", id: "act" }, "Act"),
    h("div", { class: "items" }, run.acts.map((act) => h("button", { type: "button", class: ACTS[act].bad ? "bad" : null, onclick: (event) => { event.target.closest("details").open = false; confirm(run, act); } }, ACTS[act].label))));
}

function confirm(run, act) {
  const words = h("textarea", { rows: 3, "aria-label": "Note", maxlength: 2000, required: true });
  const steps = h("select", { "aria-label": "Checkpoint" }, [...run.checkpoints].reverse().map((step) => h("option", { value: step }, `after ${step} steps`)));
  const again = act !== "roll_back" ? null : h("p", {}, run.acts.includes("stop") ? "It is done after the step in progress." : ["It is done when you resume the run: ", h("code", {}, "ratchet resume RUN")]);
  const dialog = h("dialog", { class: "small" }, h("form", { method: "dialog", onsubmit: () => send(run, act, steps, words) },
    h("h2", {}, ACTS[act].label.replace(" …", "")), h("p", { class: "muted" }, safe(run.name)), h("p", {}, ACTS[act].sure), again,
    act === "note" ? words : null, act === "roll_back" ? steps : null,
    h("p", { class: "row" }, h("button", { class: ACTS[act].bad ? "primary bad" : "primary" }, ACTS[act].label.replace(" …", "")), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

async function send(run, act, steps, words) {
  const body = { act, ...(act === "roll_back" ? { step: Number(steps.value) } : {}), ...(act === "note" ? { text: words.value } : {}) };
  try {
    const asked = await post(["runs", run.id, "acts"], body);
    notice(`Asked, as number ${asked.number}. The run records it as an event when it obeys.`);
  } catch (error) {
    notice(error.message, "error");
  }
}
