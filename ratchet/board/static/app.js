// The shell: what is in the address decides what is shown; the stream decides when it is asked for again.

import { exported, listen } from "./api.js";
import { comparePage } from "./compare.js";
import { fill, h } from "./dom.js";
import { runPage } from "./run.js";
import { runsPage } from "./runs.js";

const main = document.getElementById("main");
const link = h("span", { class: "link", role: "status" }, exported ? "export" : "connecting");
let shown = { changed() {}, leave() {} };
let route = "";

/** Draw the bar on top: where one is, the theme, and whether the page hears from its server. */
function top() {
  const modes = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
  const glyphs = { auto: "◐", light: "○", dark: "●" };
  const button = h("button", { type: "button", class: "plain", onclick: () => theme(next()) });
  const next = () => ({ auto: "light", light: "dark", dark: "auto" })[kept("theme") || "auto"];
  const theme = (mode) => {
    keep("theme", mode);
    if (mode === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = mode;
    button.setAttribute("aria-label", modes[mode]);
    button.title = modes[mode];
    fill(button, glyphs[mode]);
    window.dispatchEvent(new Event("theme"));
  };
  fill(document.getElementById("top"),
    h("a", { class: "home", href: "#/" }, h("img", { class: "mark", src: "static/icon.svg", alt: "", width: 20, height: 20 }), "Ratchet", h("span", { class: "light" }, " board")),
    h("nav", { "aria-label": "Pages" }, h("a", { href: "#/" }, "Runs"), h("a", { href: "#/compare" }, "Compare")),
    h("span", { class: "gap" }), link, button);
  theme(kept("theme") || "auto");
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("theme")));
}

function kept(key) {
  try { return localStorage.getItem(`ratchet-${key}`); } catch { return null; }
}

function keep(key, value) {
  try { localStorage.setItem(`ratchet-${key}`, value); } catch { /* private windows keep nothing */ }
}

/** Show what the address names. */
async function go() {
  const parts = location.hash.replace(/^#\/?/, "").split("?")[0].split("/").filter(Boolean).map(decodeURIComponent);
  const [page, id, ...rest] = parts;
  const key = page === "run" ? `run/${id}` : page || "";
  for (const a of document.querySelectorAll("#top nav a"))
    a.toggleAttribute("aria-current", a.getAttribute("href") === (page === "compare" ? "#/compare" : "#/"));
  if (key === route && shown.moved) return shown.moved(rest);
  shown.leave();
  route = key;
  window.scrollTo(0, 0);
  try {
    if (page === "run" && id) shown = await runPage(main, id, rest);
    else if (page === "compare") shown = await comparePage(main);
    else shown = await runsPage(main);
  } catch (error) {
    shown = { changed: () => go(), leave() {} };
    route = "?";
    fill(main, h("div", { class: "empty" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All runs"))));
  }
}

top();
window.addEventListener("hashchange", go);
listen((ids) => shown.changed(ids), (up) => {
  link.dataset.up = up ? "yes" : "no";
  fill(link, up ? "live" : "reconnecting");
});
go();
