"""Who may ask, what may be asked for, and what a stranger's text cannot do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import HOSTILE, MakeRun
from starlette.requests import Request
from starlette.testclient import TestClient

from ratchet.board.board import Board
from ratchet.board.bundle import bundle
from ratchet.board.guard import host_of
from ratchet.board.server import STATIC, Stream, make_app
from ratchet.board.text import one_line, safe

IdOf = Callable[[str], str]
OWN = {"origin": "http://localhost", "x-ratchet": "board"}


def test_the_page_and_its_files_come_with_a_policy_that_allows_no_inline_script(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', answer.text):
        assert client.get(f"/{name}").status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", answer.text)


def test_no_module_of_the_page_turns_text_into_markup() -> None:
    sinks = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|"
        r"createContextualFragment|srcdoc"
    )
    for path in [*STATIC.glob("*.js"), STATIC / "vendor" / "uPlot.iife.min.js"]:
        assert not sinks.search(path.read_text()), path.name


def test_the_page_names_no_other_machine() -> None:
    for path in [p for p in STATIC.rglob("*") if p.suffix in (".js", ".css", ".html") and "vendor" not in p.parts]:
        found = set(re.findall(r"https?://[\w./-]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert not found, path.name


def test_the_licence_of_what_is_vendored_lies_beside_it() -> None:
    assert "MIT License" in (STATIC / "vendor" / "uPlot.LICENSE").read_text()
    assert (STATIC / "vendor" / "uPlot.iife.min.js").stat().st_size < 60_000


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7007", "", "[::2]"])
def test_a_page_whose_name_was_bent_to_this_machine_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/runs", headers={"host": host})
    assert answer.status_code == 421
    assert "content-security-policy" in answer.headers


def test_hosts_are_read_without_their_port() -> None:
    assert [host_of(h) for h in ("LOCALHOST:1", "[::1]:7007", "127.0.0.1", "a b", "[")] == [
        "localhost", "::1", "127.0.0.1", "a b", "",
    ]  # fmt: skip


def test_pages_of_other_sites_may_neither_read_nor_change(make_run: MakeRun, client: TestClient, id_of: IdOf) -> None:
    make_run("one")
    at = f"/api/runs/{id_of('one')}/tags"
    assert client.get("/api/runs", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    for headers in ({}, {"origin": "http://evil.example", "x-ratchet": "board"}, {"origin": "http://localhost"}):
        assert client.post(at, json={"tags": ["x"]}, headers=headers).status_code == 403
    assert client.post(at, json={"tags": ["x"]}, headers=OWN).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../board.py", "/static/%2e%2e/board.py", "/static/..%2fboard.py", "/static//etc/passwd",
        "/static/vendor/%2e%2e/%2e%2e/guard.py", "/api/runs/..%2f..%2fetc", "/api/runs/%2e%2e/ledger",
        "/api/runs/x/steps/..%2f1", "/api/runs/x/steps/-1", "/api/runs/x/steps/1e9/0",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_folder(make_run: MakeRun, client: TestClient, path: str) -> None:
    make_run("one")
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_with_a_token_nobody_reads_without_it_and_a_visit_trades_it_for_a_cookie(
    make_run: MakeRun, board: Board
) -> None:
    make_run("one")
    client = TestClient(make_app(board, token="s3cret"), base_url="http://box.example")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": "ratchet-board=wrong"}, {"cookie": "\x00;;="}):
        assert client.get("/api/runs", headers=headers).status_code == 401
        assert client.get("/static/app.js", headers=headers).status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    first = client.get("/?token=s3cret", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "httponly" in first.headers["set-cookie"].lower()
    assert "samesite=strict" in first.headers["set-cookie"].lower()
    assert client.get("/api/runs").status_code == 200
    fresh = TestClient(make_app(board, token="s3cret"), base_url="http://box.example")
    assert fresh.get("/api/runs", headers={"authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"tags": 3}', b'{"tags": [1]}', b"[" * 90_000, b"x" * 70_000])
def test_bodies_that_are_none_are_refused_in_a_sentence(
    make_run: MakeRun, client: TestClient, id_of: IdOf, body: bytes
) -> None:
    make_run("one")
    answer = client.post(f"/api/runs/{id_of('one')}/tags", content=body, headers=OWN)
    assert answer.status_code in (400, 404, 413)
    assert answer.json()["error"].endswith(".")


def test_what_a_policy_wrote_travels_as_json_and_nothing_else(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    make_run("one")
    answer = client.get(f"/api/runs/{id_of('one')}/steps/11/0")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["attempts"][2]["text"] == HOSTILE


def test_signs_that_cannot_be_seen_are_written_out_for_a_terminal() -> None:
    told = safe(HOSTILE)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", told)
    assert "⟨U+001B⟩[2J" in told
    assert "⟨U+202E⟩" in told
    assert one_line("a\nb\tc" + "d" * 50, 10) == "a b cdddd…"


def test_the_stream_says_hello_then_which_runs_have_changed(make_run: MakeRun, board: Board) -> None:
    store = make_run("one", 3, state="stopped")
    board.library.refresh(force=True)
    id_ = next(iter(board.library.records()))

    async def listen() -> list[str]:
        stream = Stream(board)
        scope = {"type": "http", "method": "GET", "path": "/api/changes", "headers": [], "query_string": b""}
        answer = await stream.answer(Request(scope))
        heard = []
        parts = aiter(answer.body_iterator)
        heard.append(str(await anext(parts)))
        store.append_event("note", 3, text="hello")
        while "changed" not in heard[-1]:
            heard.append(str(await asyncio.wait_for(anext(parts), 20)))
        stream.close()
        assert [part async for part in parts] == []
        return heard

    heard = asyncio.run(listen())
    assert "event: hello" in heard[0]
    assert json.loads(heard[-1].split("data: ")[1]) == [id_]


def test_the_modules_become_one_script_in_the_order_they_need_each_other() -> None:
    modules = {
        "a.js": 'import { two } from "./b.js";\n\nexport async function one() { return two; }\n',
        "b.js": "export const two = 2;\n",
    }
    text = bundle(modules, "a.js")
    assert text.index('modules["b.js"] =') < text.index('modules["a.js"] =')
    assert 'const { two } = modules["b.js"];' in text
    assert "return { one };" in text
    assert not re.search(r"^(import|export)\b", text, re.M)
    with pytest.raises(ValueError, match="in a form"):
        bundle({"a.js": "export default 3;\n"}, "a.js")
    with pytest.raises(ValueError, match="circle"):
        bundle({"a.js": 'import { x } from "./a.js";\n'}, "a.js")


def test_an_export_holds_the_page_and_its_answers_and_overwrites_nothing_else(
    make_run: MakeRun, board: Board, tmp_path: Path
) -> None:
    from ratchet.board.export import write_export
    from ratchet.core.errors import ConfigError

    make_run("one")
    out = tmp_path / "out"
    assert write_export(board, out) == 1
    page = (out / "index.html").read_text()
    assert 'data-export="yes"' in page
    assert 'type="module"' not in page
    data = {p.stem: p.read_text() for p in (out / "data").glob("*.js")}
    id_ = next(iter(board.library.records()))
    assert {
        "runs",
        "compare",
        "compare-mean",
        f"runs-{id_}",
        f"runs-{id_}-series-step",
        f"runs-{id_}-steps-11-0-2",
    } <= set(data)
    held = json.loads(data[f"runs-{id_}-steps-11-0-2"].partition(" = ")[2].rstrip(";\n"))
    assert held["trajectories"][0]["turns"][0]["text"] == HOSTILE
    assert all(text.isascii() for text in data.values())
    write_export(board, out)  # again over itself
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        write_export(board, tmp_path / "mine")
