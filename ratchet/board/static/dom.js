// Making elements. Text becomes text: nothing in this page turns a string into markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. `props`: class, on<event> handlers, `dataset`, `style` (an object), and attributes. */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** Return an element of SVG. */
export function s(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "selected" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

/** Append children: elements, texts, numbers, lists of these; nothing for null and false. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Replace what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

let released = Promise.resolve();
const LONGEST_PRESS_MS = 2000; // whoever holds a button longer does not click
globalThis.addEventListener("pointerdown", () => {
  released = new Promise((done) => {
    for (const end of ["pointerup", "pointercancel", "dragend"]) globalThis.addEventListener(end, () => setTimeout(done), { once: true, capture: true });
    setTimeout(done, LONGEST_PRESS_MS);
  });
}, true);

/** Return when no button of the pointer is down: a click on what is drawn anew meanwhile would be lost. */
export function untouched() {
  return released;
}

/** Draw, and give the focus back to the element of the same id if the drawing took it away. */
export function keepingFocus(draw) {
  const id = document.activeElement?.id;
  draw();
  if (id && document.activeElement?.id !== id) document.getElementById(id)?.focus({ preventScroll: true });
}

/** Return a function that calls `work` once, `ms` after it was last asked to. */
export function later(work, ms) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), ms);
  };
}

/** Say something to everybody, screen readers included; it goes away by itself. */
export function notice(text, kind = "info") {
  const box = document.getElementById("notices");
  const note = h("p", { class: `notice ${kind}` }, text);
  box.append(note);
  setTimeout(() => note.remove(), kind === "error" ? 9000 : 4500);
}

/** Return a labelled choice. */
export function choice(label, options, value, change) {
  const select = h("select", { onchange: (event) => change(event.target.value) },
    options.map((o) => h("option", { value: o.value, selected: o.value === value }, o.label)));
  return h("label", { class: "field" }, h("span", {}, label), select);
}

/** Return buttons of which one is pressed. */
export function segments(label, options, value, change) {
  const box = h("div", { class: "segments", role: "group", "aria-label": label });
  for (const option of options) {
    box.append(h("button", {
      type: "button", "aria-pressed": String(option.value === value), title: option.title,
      onclick: (event) => {
        for (const other of box.children) other.setAttribute("aria-pressed", "false");
        event.currentTarget.setAttribute("aria-pressed", "true");
        change(option.value);
      },
    }, option.label));
  }
  return box;
}

/** Return a small line of a series, for a row of a table; its name says first and last value. */
export function sparkline(x, y, label) {
  const points = x.map((v, i) => [v, y[i]]).filter((p) => p[1] !== null);
  const box = s("svg", { class: "spark", viewBox: "0 0 120 28", preserveAspectRatio: "none", role: "img", "aria-label": label });
  if (points.length < 2) return box;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Math.min(...ys), y1 = Math.max(...ys);
  const place = ([a, b]) => [2 + (116 * (a - x0)) / (x1 - x0 || 1), y1 > y0 ? 25 - (22 * (b - y0)) / (y1 - y0) : 14];
  const placed = points.map(place);
  const path = placed.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  box.append(
    s("path", { d: `${path}L${placed.at(-1)[0].toFixed(1)} 28L2 28Z`, class: "area" }),
    s("path", { d: path, class: "line", "vector-effect": "non-scaling-stroke" }),
  );
  return box;
}
