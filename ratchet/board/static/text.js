// Numbers, times and strangers' texts as people read them. Knows no page.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Return a text in which signs that cannot be seen, or that turn others around, are written out: ⟨U+202E⟩. */
export function safe(text) {
  return String(text).replace(HIDDEN, name);
}

/** Return a text as pieces: [text, whether it stands for a sign that cannot be seen]. */
export function pieces(text) {
  const found = [];
  let from = 0;
  for (const match of String(text).matchAll(HIDDEN)) {
    if (match.index > from) found.push([text.slice(from, match.index), false]);
    found.push([name(match[0]), true]);
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push([text.slice(from), false]);
  return found;
}

function name(sign) {
  const code = sign.codePointAt(0);
  if (code === 27) return "⟨ESC⟩";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Return a number with about three figures: 0.0412, 1.87, 24,310, 6.1e-7. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return minus(value.toLocaleString("en-US"));
  if (size < 1e-3 || size >= 1e9) return minus(value.toExponential(2).replace("e+", "e"));
  if (size >= 1000) return minus(Math.round(value).toLocaleString("en-US"));
  return minus(value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size)))));
}

const minus = (text) => text.replace("-", "−");

/** Return a number as an axis has it, without zeros at its end. */
export function tick(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return minus(Number(value.toPrecision(4)).toExponential().replace("e+", "e"));
  return minus(Number(value.toPrecision(7)).toLocaleString("en-US", { maximumFractionDigits: 7 }));
}

/** Return a number with the unit of the dictionary. */
export function quantity(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return value > 0 && value < 1e-4 ? "< 0.01 %" : `${number(100 * value)} %`;
  if (unit === "s") return duration(value);
  if (unit === "bytes") return bytes(value);
  return unit ? `${number(value)} ${unit}` : number(value);
}

/** Return seconds as 0.38 s, 42 s, 2 min 05 s, 1 h 07 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${number(seconds)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${minutes} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
}

/** Return how long ago a Unix time was: now, 42 s, 5 min, 3 h, 12 d. */
export function age(time, now = Date.now() / 1000) {
  const gone = now - time;
  if (!time) return "–";
  if (gone < 3) return "now";
  if (gone < 90) return `${Math.round(gone)} s`;
  if (gone < 5400) return `${Math.round(gone / 60)} min`;
  if (gone < 172800) return `${Math.round(gone / 3600)} h`;
  return `${Math.round(gone / 86400)} d`;
}

/** Return bytes in decimal multiples. */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (count >= 999.5 && power < units.length - 1) [count, power] = [count / 1000, power + 1];
  return `${number(Number(count.toPrecision(3)))} ${units[power]}`;
}

/** Return a count with its noun: 1 step, 2 steps. */
export function counted(count, noun, nouns = `${noun}s`) {
  return `${count.toLocaleString("en-US")} ${count === 1 ? noun : nouns}`;
}

/** Return a Unix time as the reader's own date and time. */
export function clock(time) {
  return new Date(1000 * time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** Return what a metric's description says, for people: [label, text] pairs. */
export function told(metric) {
  const pairs = [["", metric.meaning], ["Formula", metric.formula], ["Unit", metric.unit && metric.unit !== "share" ? metric.unit : metric.unit && "share, 0 to 1"],
    ["Normal", metric.normal], ["", metric.zero && `${metric.zero}.`], ["", metric.better], ["Key in the log", metric.key !== metric.name && metric.key]];
  return pairs.filter((pair) => pair[1]);
}
