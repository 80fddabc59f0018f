// Asking the server, hearing what changes, and the same answers from the files of an export.

export const exported = document.documentElement.dataset.export === "yes";

const base = new URL(".", document.baseURI);
const kept = new Map();

/** Return the answer of an address, as `get("runs", id, "series", {m: [...]})`. Throws an Error with a sentence. */
export async function get(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  if (exported) return fromExport(parts, query);
  const url = new URL(["api", ...parts.map((part) => encodeURIComponent(part))].join("/"), base);
  for (const [key, value] of Object.entries(query))
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") url.searchParams.append(key, one);
  return answer(await reached(fetch(url, { headers: { accept: "application/json" } })));
}

/** Ask the server to change something. */
export async function post(parts, body) {
  const url = new URL(["api", ...parts.map((part) => encodeURIComponent(part))].join("/"), base);
  const headers = { "content-type": "application/json", "x-ratchet": "board" };
  return answer(await reached(fetch(url, { method: "POST", headers, body: JSON.stringify(body) })));
}

async function reached(asked) {
  try {
    return await asked;
  } catch {
    throw new Error("The board's server does not answer. Is `ratchet board` still running?");
  }
}

async function answer(response) {
  const body = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (!response.ok) throw new Error(body.error || `The server answered ${response.status}.`);
  return body;
}

/** Call `changed(ids)` when runs change (null: everything may have), and `link(up)` when the stream comes or goes. */
export function listen(changed, link) {
  if (exported) return;
  let boot = "";
  const stream = new EventSource(new URL("api/changes", base));
  stream.addEventListener("hello", (event) => {
    link(true);
    if (boot && boot !== event.data) changed(null);
    boot = event.data;
  });
  stream.addEventListener("changed", (event) => changed(JSON.parse(event.data)));
  stream.addEventListener("error", () => link(false));
}

// --- an export: the same answers as files, each a script that hands one over, for pages opened from the disk

function handed(key) {
  if (!kept.has(key)) {
    kept.set(key, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`data/${key}.js`, base).href;
      script.onerror = () => reject(new Error("This is not in the export. Open the folder with `ratchet board` to see it."));
      globalThis.ratchetHanded = globalThis.ratchetHanded || {};
      script.onload = () => resolve(globalThis.ratchetHanded[key]);
      document.head.append(script);
    }));
  }
  return kept.get(key);
}

async function fromExport(parts, query) {
  if (parts[0] === "compare") return comparison(await handed(query.seeds === "mean" ? "compare-mean" : "compare"), query);
  if (parts[2] === "series") {
    const held = await handed(["runs", parts[1], "series", query.x || "step"].join("-"));
    return query.m.map((name) => {
      const found = held[name] || { name, x: [], y: [], sx: [], sy: [], window: 1, points: 0, caption: `${name}: not in the export.` };
      return query.smooth === "off" ? { ...found, sx: [], sy: [], window: 1 } : found;
    });
  }
  return handed(parts.join("-"));
}

function comparison(whole, query) {
  const ids = new Set(query.run);
  const charts = whole.charts.filter((chart) => query.m.includes(chart.metric))
    .map((chart) => ({ ...chart, lines: chart.lines.filter((line) => line.ids.some((id) => ids.has(id))) }));
  return { ...whole, charts, runs: whole.runs.filter((run) => ids.has(run.id)) };
}
