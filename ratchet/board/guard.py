"""Who may ask: loopback only, or a token; no other site's pages; and what a browser may do with the answers.

Model text is hostile. The page never turns it into markup, and this is the second lock: the policy of content allows
scripts and styles of this server alone, none inline, and no strings that become markup.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
COOKIE = "ratchet-board"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware that refuses whoever may not ask, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str = "", hosts: Iterable[str] = LOOPBACK) -> None:
        """With a `token` everybody must bring it, and any host name will do; without one, only `hosts` are answered."""
        self._app, self._token, self._hosts = app, token, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope)
        answer = self._app if refused is None else refused
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._token and host_of(headers.get("host", "")) not in self._hosts:
            return refusal(421, "This board answers to localhost only. A page of another name may not read it.")
        if headers.get("sec-fetch-site", "none") == "cross-site" and scope["path"] != "/":
            return refusal(403, "Pages of other sites may not ask this board.")
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return refusal(403, "Only the board's own page may change something.")
        return self._without_token(scope, headers) if self._token else None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Return what is said to somebody without the token; a first visit trades its token for a cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["method"] == "GET" and self._is_token(given):
            response = RedirectResponse(scope["path"], status_code=303)
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(_cookie(headers.get("cookie", ""))) or self._is_token(bearer):
            return None
        return refusal(401, "This board needs its token: open the address that `ratchet board` printed.")

    def _is_token(self, text: str) -> bool:
        return bool(text) and hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())


def refusal(code: int, sentence: str) -> JSONResponse:
    """Return a refusal as the page can show it."""
    return JSONResponse({"error": sentence}, status_code=code)


def host_of(header: str) -> str:
    """Return the name in a Host header, without the port; empty if it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Return whether a request comes from this page: its origin is this host, and it has a header no form can send."""
    origin = headers.get("origin", "")
    same = bool(origin) and urlsplit(origin).netloc == headers.get("host", "")
    return same and headers.get("x-ratchet", "") == "board"


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
