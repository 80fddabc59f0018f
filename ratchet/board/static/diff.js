// What changed between two texts, word by word: the shortest edit script (Myers 1986), with a bound on its work.

const MOST_WORDS = 4000;
const MOST_EDITS = 1500;

/** Return [kind, text] pieces that make `b` of `a`: "same", "gone", "new". */
export function diff(a, b) {
  const left = split(a), right = split(b);
  let head = 0, tail = 0;
  while (head < left.length && head < right.length && left[head] === right[head]) head++;
  while (tail < left.length - head && tail < right.length - head && left.at(-1 - tail) === right.at(-1 - tail)) tail++;
  const middle = script(left.slice(head, left.length - tail), right.slice(head, right.length - tail));
  return merged([["same", left.slice(0, head).join("")], ...middle, ["same", left.slice(left.length - tail).join("")]]);
}

const split = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

function script(a, b) {
  const replaced = () => [["gone", a.join("")], ["new", b.join("")]];
  if (!a.length || !b.length || a.length + b.length > 2 * MOST_WORDS) return replaced();
  const size = Math.min(a.length + b.length, MOST_EDITS), trace = [];
  let ends = new Map([[1, 0]]);
  for (let d = 0; d <= size; d++) {
    trace.push(new Map(ends));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (ends.get(k - 1) ?? -1) < (ends.get(k + 1) ?? -1));
      let x = down ? ends.get(k + 1) ?? 0 : (ends.get(k - 1) ?? 0) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      ends.set(k, x);
      if (x >= a.length && x - k >= b.length) return walked(trace, a, b, d);
    }
  }
  return replaced();
}

function walked(trace, a, b, edits) {
  const found = [];
  let x = a.length, y = b.length;
  for (let d = edits; d > 0; d--) {
    const ends = trace[d], k = x - y;
    const down = k === -d || (k !== d && (ends.get(k - 1) ?? -1) < (ends.get(k + 1) ?? -1));
    const before = down ? k + 1 : k - 1, bx = ends.get(before) ?? 0, by = bx - before;
    while (x > bx && y > by && x > 0 && y > 0 && a[x - 1] === b[y - 1]) { found.push(["same", a[x - 1]]); x--; y--; }
    if (down) found.push(["new", b[--y]]);
    else found.push(["gone", a[--x]]);
  }
  while (x > 0 && y > 0) { found.push(["same", a[x - 1]]); x--; y--; }
  return found.reverse();
}

function merged(pieces) {
  const found = [];
  for (const [kind, text] of pieces) {
    if (!text) continue;
    if (found.length && found.at(-1)[0] === kind) found.at(-1)[1] += text;
    else found.push([kind, text]);
  }
  return found;
}
