"""`ratchet export --push`: what goes to the hub, over a stand-in for it on this machine's own loopback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratchet.cli.main import main

pytest.importorskip("huggingface_hub")

TOKEN = "hf_stand_in"


class Hub:
    """Speaks what the library says to the hub when it makes a repository and commits small files to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: list[Any] = []
        self.message = ""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(404, {"error": "no such thing"})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("authorization") != f"Bearer {TOKEN}":
                    self.answer(401, {"error": "Invalid username or password."})
                elif self.path == "/api/repos/create":
                    hub.made.append(json.loads(body))
                    self.answer(200, {"url": f"{hub.url}/me/letters"})
                elif "/preupload/" in self.path:
                    files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                             for f in json.loads(body)["files"]]  # fmt: skip
                    self.answer(200, {"files": files})
                elif "/commit/" in self.path:
                    hub.take(body)
                    self.answer(
                        200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.url}/me/letters/commit/0"}
                    )
                else:
                    self.answer(200, {})

            def answer(self, status: int, body: Any) -> None:
                out = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def take(self, lines: bytes) -> None:
        for line in map(json.loads, lines.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "header":
                self.message = line["value"]["summary"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    words = [
        "judge",
        "--plain",
        "warm_start.steps=0",
        "train.steps=1",
        "explore.prompts_per_step=2",
        "eval.tasks=0",
        f"run.folder={folder}",
        "run.name=letters",
    ]
    done = CliRunner().invoke(main, ["train", *words, f"warm_start.cache={folder}/cache"])
    assert done.exit_code == 0, done.output
    return folder / "letters"


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


def pushed(run: Path, folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Return exit code and output of a fresh process: the library reads its settings when it is imported."""
    told = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    told |= {"HF_HOME": str(folder.parent / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = "from ratchet.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "export", str(run), str(folder), *words],
        capture_output=True, text=True, env=told, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_the_whole_folder_goes_to_a_private_repository(run: Path, tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "model"
    code, said = pushed(run, folder, "--push", "me/letters", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert (code, f"pushed to {hub.url}/me/letters" in said) == (0, True), said
    assert hub.made[0]["name"] == "letters"
    assert hub.made[0].get("private", hub.made[0].get("visibility") == "private") is True
    assert {name: (folder / name).read_bytes() for name in hub.files} == hub.files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.files)
    assert hub.message.startswith("letters step_000001, fingerprint ")


PUSH = """
import sys
from pathlib import Path
from ratchet.core.errors import ModelError
from ratchet.policy.hub import push_folder
try:
    print(push_folder(Path(sys.argv[1]), "me/letters", private=True, message="m"))
except ModelError as error:
    print(error)
"""


def told(folder: Path, url: str) -> str:
    """Return what a fresh process says of a push with a token that the stand-in does not know."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(folder.parent / "home"), "HF_ENDPOINT": url, "HF_TOKEN": "hf_wrong"}
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder)], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


def test_a_hub_that_refuses_leaves_the_folder_and_says_how_to_try_again(tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "model"
    said = told(folder, hub.url)
    assert f"{folder} is written, and was not pushed to me/letters" in said
    assert "token may not write there" in said
    assert f"hf upload me/letters {folder}" in said


def test_a_hub_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    said = told(tmp_path / "model", "http://127.0.0.1:9")
    assert "the hub cannot be reached" in said
    assert "hf upload me/letters" in said


def test_without_a_token_or_a_name_nothing_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for words, expected in [
        (["--push", "me/letters"], "Run hf auth login, or set HF_TOKEN"),
        (["--push", "letters"], "is called owner/name"),
        (["--public"], "--push names none"),
    ]:
        result = CliRunner().invoke(main, ["export", str(run), str(tmp_path / "m"), *words])
        assert (result.exit_code, expected in result.output) == (2, True), result.output
    assert not (tmp_path / "m").exists()
