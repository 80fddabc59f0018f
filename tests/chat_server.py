"""A server that speaks OpenAI's chat completions and says what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Message = Mapping[str, Any]


class ChatServer:
    """Answers every request with `speak(body)`: a message, or a number and a text for an error of HTTP."""

    def __init__(self, speak: Callable[[Mapping[str, Any]], Message | tuple[int, str]]) -> None:
        self.asked: list[dict[str, Any]] = []
        """Bodies of the requests so far."""
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._lock, self._now = threading.Lock(), 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.asked.append(body)
                    server.keys.append(self.headers.get("authorization"))
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                said = speak(body) if self.path == "/v1/chat/completions" else (404, f"no {self.path} here")
                with server._lock:
                    server._now -= 1
                if isinstance(said, tuple):
                    self._send(said[0], said[1].encode())
                else:
                    self._send(200, json.dumps(said if "choices" in said else completion(said)).encode())

            def _send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Be quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def serving(speak: Callable[[Mapping[str, Any]], Message | tuple[int, str]]) -> Iterator[ChatServer]:
    """Serve while the block runs."""
    server = ChatServer(speak)
    try:
        yield server
    finally:
        server.close()


def completion(message: Message, *, finish: str = "stop") -> dict[str, Any]:
    """Return a whole answer around a message."""
    tokens = len(str(message.get("content") or "")) or 1
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": tokens},
    }


def calls(*made: tuple[str, object]) -> dict[str, Any]:
    """Return a message with tool calls: names and arguments; arguments that are a text stand as they are."""
    return {
        "content": None,
        "tool_calls": [
            {
                "id": f"made_{i}",
                "type": "function",
                "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
            }
            for i, (name, a) in enumerate(made)
        ],
    }
