"""The page in a real browser. Skipped where Playwright or Chromium is missing; marked slow, since it starts both."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import uvicorn
from boards import HOSTILE, MakeRun, made_group, row

from ratchet.board.board import Board
from ratchet.board.export import write_export
from ratchet.board.finding import Finding
from ratchet.board.server import make_app
from ratchet.store.run_store import RunStore

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install 'ratchet[browser]'"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 120_000
"""A loaded machine draws slowly; what is waited for comes at once elsewhere."""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def page(chrome: Any) -> Iterator[Any]:
    """A page that collects what goes wrong in it; the test fails if anything does."""
    context = chrome.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    made.wrong = wrong
    yield made
    context.close()
    assert [text for text in wrong if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text] == []


def until(page: Any, expression: str) -> None:
    """Wait until something is true in the page; asked from outside, since its policy forbids strings as scripts."""
    waited = 0
    while not page.evaluate(expression):
        assert waited < PATIENCE_MS, expression
        page.wait_for_timeout(100)
        waited += 100


@contextmanager
def served(board: Board, port: int = 0) -> Iterator[str]:
    """Serve a board from a thread and yield its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    app = make_app(board, leaving=lambda: server.should_exit)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)


def id_of(board: Board, name: str) -> str:
    board.library.refresh(force=True)
    return next(i for i, r in board.library.records().items() if board.library.name_of(r) == name)


def test_what_a_policy_wrote_stays_text_everywhere(make_run: MakeRun, folder: Path, page: Any) -> None:
    store = make_run("one", 12)
    store.write_groups(11, [made_group(0, 11, [HOSTILE, "b"], [1.0, 0.0], prompt=HOSTILE)])
    store.append_event("note", 11, text=HOSTILE)
    board = Board(folder, lambda path: [Finding("error", HOSTILE, "reward/mean", 0, 3, HOSTILE, check=(HOSTILE,))])
    board.tags.put(id_of(board, "one"), ["<b>tag</b>"])
    one = id_of(board, "one")
    with served(board) as address:
        for place, there in (
            ("#/", ".list .tag"),
            (f"#/run/{one}/charts", ".figure canvas"),
            (f"#/run/{one}/rollouts/11/0/0", ".conversation .output .text"),
            (f"#/run/{one}/doctor", ".card"),
            (f"#/run/{one}/events", ".events .gist"),
            ("#/compare", ".grid canvas"),
        ):
            page.goto(f"{address}{place}")
            page.wait_for_selector(there)
            assert page.evaluate("globalThis.caught === undefined")
            assert (
                page.locator("main script, main img[onerror], main svg[onload], main a[href^='javascript']").count()
                == 0
            )
            shown = page.locator("main").inner_text()
            assert not any(sign in shown for sign in "\x1b\u202e\u2066\u200b")
        page.goto(f"{address}#/run/{one}/rollouts/11/0/0")
        page.wait_for_selector(".conversation .output .text")
        text = page.locator(".conversation .output .text").first.inner_text()
        assert "<script>" in text
        assert "⟨U+202E⟩" in text
        assert "⟨ESC⟩" in text
    board.close()


def test_charts_follow_a_run_while_it_trains_and_outlive_the_server(make_run: MakeRun, folder: Path, page: Any) -> None:
    store = make_run("one", 12, state="stopped")
    board = Board(folder)
    with served(board) as address:
        page.goto(f"{address}#/run/{id_of(board, 'one')}/charts")
        page.wait_for_selector(".figure canvas")
        chart = page.locator(".figure .plot").nth(1)
        assert "reward/mean: from 0.14" in chart.get_attribute("aria-label")
        store.append_metrics(row(12, 0.99))
        until(page, "document.querySelector('.facts .steps').textContent.includes('13 /')")
        until(page, "document.querySelectorAll('.figure .plot')[1].ariaLabel.includes('highest 0.990')")
        port = int(address.rstrip("/").rpartition(":")[2])
    until(page, "document.querySelector('.link').textContent === 'reconnecting'")
    board.close()
    store.append_metrics(row(13, 2.5))
    again = Board(folder)
    with served(again, port):
        until(page, "document.querySelector('.link').textContent === 'live'")
        until(page, "document.querySelectorAll('.figure .plot')[1].ariaLabel.includes('highest 2.50')")
    again.close()


def test_zoom_is_linked_and_everything_works_from_the_keyboard(make_run: MakeRun, folder: Path, page: Any) -> None:
    make_run("one", 40)
    board = Board(folder)
    with served(board) as address:
        page.goto(f"{address}#/run/{id_of(board, 'one')}/charts")
        page.wait_for_selector(".figure canvas")
        page.locator(".figure .plot").first.focus()
        page.keyboard.press("+")
        page.wait_for_selector("button:has-text('Show all'):visible")
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelectorAll('.readout')[1].textContent.includes(':')")
        page.keyboard.press("0")
        page.wait_for_selector("button:has-text('Show all')", state="hidden")
        page.locator("[role=tab][aria-selected=true]").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".panes")
        assert page.locator("[role=tab][aria-selected=true]").inner_text().startswith("Rollouts")
    board.close()


def test_what_a_run_writes_takes_neither_a_click_nor_the_focus_away(make_run: MakeRun, folder: Path, page: Any) -> None:
    store = make_run("one", 12, state="stopped")
    (store.folder / "checkpoints" / "step_000010").mkdir()
    board = Board(folder)
    with served(board) as address:
        page.goto(f"{address}#/run/{id_of(board, 'one')}/charts")
        page.wait_for_selector(".figure canvas")
        page.locator("#act").focus()
        store.append_metrics(row(12, 0.5))
        until(page, "document.querySelector('.facts .steps').textContent.includes('13 /')")
        assert page.evaluate("document.activeElement.id") == "act"
        page.locator("#tab-ledger").hover()
        page.mouse.down()
        with page.expect_response("**/api/runs/*"):
            store.append_metrics(row(13, 0.5))
        page.mouse.up()
        page.wait_for_selector(".book")
        until(page, "document.querySelector('.facts .steps').textContent.includes('14 /')")
        page.locator("#tab-ledger").focus()
        store.append_metrics(row(14, 0.5))
        until(page, "document.querySelector('.facts .steps').textContent.includes('15 /')")
        assert page.evaluate("document.activeElement.id") == "tab-ledger"
    board.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fifty_runs_fit_and_can_be_read_in_both_themes(
    make_run: MakeRun, folder: Path, page: Any, width: int, theme: str
) -> None:
    for i in range(50):
        make_run(f"sweep/a-rather-long-name-of-a-run-{i:02d}", 3, seed=i)
    board = Board(folder)
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    with served(board) as address:
        page.goto(address)
        until(page, "document.querySelectorAll('.list tbody tr').length === 50")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        page.locator("input[type=search]").fill("run.seed=49")
        until(page, "document.querySelectorAll('.list tbody tr').length === 1")
        page.goto(f"{address}#/run/{id_of(board, 'sweep/a-rather-long-name-of-a-run-07')}/charts")
        page.wait_for_selector(".figure canvas")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
    board.close()


LETTERS = Path(__file__).parents[1] / "run" / "letters.py"
TINY = {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "head_size": 16, "intermediate": 16, "context": 24}


@pytest.mark.timeout(600)
def test_every_button_becomes_an_event_of_a_run_that_trains(folder: Path, tmp_path: Path, page: Any) -> None:
    tree = {
        "run": {"threads": 1, "device": "cpu", "name": "live", "folder": str(folder)},
        "environment": {"name": f"{LETTERS}:Letters"},
        "policy": {"tiny": TINY},
        "explore": {"prompts_per_step": 4, "samples_per_prompt": 3, "max_tokens": 6},
        "algorithm": {"name": "grpo"},
        # It ends when it is asked to, and writes no checkpoint but the one it is asked for, so that none is removed.
        "train": {"steps": 50_000},
        "record": {"checkpoint_every": 50_000},
        "warm_start": {"cache": str(tmp_path / "cache")},
    }
    (tmp_path / "live.toml").write_text(tomli_w.dumps(tree))
    command = "from ratchet.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", command, "train", str(tmp_path / "live.toml"), "--plain"])
    board, store = Board(folder), RunStore(folder / "live")

    def events(kind: str) -> list[dict[str, Any]]:
        return [e for e in store.events() if e["kind"] == kind]

    def wait(there: Any, longest_ms: int = PATIENCE_MS) -> None:
        waited = 0
        while not there():
            assert waited < longest_ms
            assert process.poll() is None, "the run ended"
            page.wait_for_timeout(100)
            waited += 100

    def act(label: str) -> Any:
        page.locator(".menu summary").click()
        page.locator(".menu button", has_text=label).click()
        return page.locator("dialog")

    try:
        wait(lambda: (folder / "live" / "metrics.jsonl").is_file() and len(store.metrics()) > 20, 3 * PATIENCE_MS)
        with served(board) as address:
            page.goto(f"{address}#/run/{id_of(board, 'live')}/charts")
            page.wait_for_selector(".figure canvas")
            act("Note").locator("textarea").fill("<b>seen</b>")
            page.locator("dialog .primary").click()
            act("Checkpoint").locator(".primary").click()
            act("Pause").locator(".primary").click()
            until(page, "document.querySelector('.head').textContent.includes('paused')")
            act("Go on").locator(".primary").click()
            until(page, "!document.querySelector('.head').textContent.includes('paused')")
            back = int(act("Roll back").locator("select").input_value())
            assert back == max(int(p.name[5:]) for p in (folder / "live" / "checkpoints").glob("step_*"))
            page.locator("dialog .primary").click()
            wait(lambda: events("turned_back"))
            act("Stop").locator("button:has-text('Cancel')").click()  # nothing is asked without a confirmation
            act("Stop").locator(".primary").click()
            until(page, "document.querySelector('.head').textContent.includes('stopped')")
        assert [e["act"] for e in events("act")] == ["note", "checkpoint", "pause", "go_on", "roll_back", "stop"]
        assert events("act")[0]["text"] == "<b>seen</b>"
        assert [e["to"] for e in events("rollback")] == [back]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        board.close()


def test_brushing_the_coordinates_keeps_the_runs_that_pass(make_run: MakeRun, folder: Path, page: Any) -> None:
    for i, rate in enumerate((1e-4, 1e-3, 1e-2)):
        make_run(f"sweep/{i}", 4, lr=rate)
    board = Board(folder)
    with served(board) as address:
        page.goto(f"{address}#/compare")
        page.wait_for_selector(".parallel .strip")
        page.locator(".parallel .strip").first.focus()
        page.keyboard.press("ArrowUp")
        until(page, "document.querySelectorAll('.parallel .run.out').length > 0")
        kept = page.evaluate("document.querySelectorAll('.parallel .run:not(.out)').length")
        assert 0 < kept < 3
        assert f"{kept} run" in page.locator(".parallel + p").inner_text()
        page.keyboard.press("Escape")
        until(page, "document.querySelectorAll('.parallel .run.out').length === 0")
    board.close()


def test_an_export_opens_from_the_disk(make_run: MakeRun, folder: Path, tmp_path: Path, page: Any) -> None:
    make_run("one", 12)
    board = Board(folder)
    write_export(board, tmp_path / "out")
    one = id_of(board, "one")
    board.close()
    page.goto((tmp_path / "out" / "index.html").as_uri())
    page.wait_for_selector(f"#run-{one}")
    page.goto(f"{(tmp_path / 'out' / 'index.html').as_uri()}#/run/{one}/charts")
    page.wait_for_selector(".figure canvas")
    page.goto(f"{(tmp_path / 'out' / 'index.html').as_uri()}#/run/{one}/rollouts/11/0/0")
    page.wait_for_selector(".conversation .output .text")
    assert page.locator(".menu").count() == 0


CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length === 4 ? m : [...m, 1]; };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255)); return 0.21 * r + 0.72 * g + 0.07 * b; };
  const behind = (e) => {
    let under = [0, 0, 0];
    const above = [];
    for (; e; e = e.parentElement) {
      above.push(parse(getComputedStyle(e).backgroundColor));
      if (above.at(-1)[3] === 1) break;
    }
    for (const [r, g, b, a] of above.reverse()) under = under.map((v, i) => v * (1 - a) + [r, g, b][i] * a);
    return under;
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('svg, noscript, .hidden, .skip')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${e.className || e.tagName}: ${e.textContent.trim().slice(0, 20)}`);
  }
  return [...new Set(poor)];
}"""
"""Texts whose contrast with what lies behind them is below 4.5 to 1 (WCAG 2, level AA)."""
