"""Where an endpoint listens, under which names it answers, and the token it asks for."""

from __future__ import annotations

import ipaddress
import os
import socket

from ratchet.core.errors import ConfigError

TOKEN = "RATCHET_SERVE_TOKEN"
"""Environment variable with what clients must show. Not an option: those are seen in lists of processes."""
LEAST_TOKEN = 16
"""Fewest characters of a token that others could try to guess."""


def token_for(host: str, where: str) -> str:
    """Return what clients must show; `where` is what sets the host, for messages.

    **Raises**: `ConfigError` if others could ask and there is none or a short one.
    """
    token = os.environ.get(TOKEN, "")
    if not token and not is_own(host):
        raise ConfigError(
            f"{where} {host} lets other machines ask, so a token is required. Set {TOKEN} to a long random text, or "
            "listen on 127.0.0.1."
        )
    if token and len(token) < LEAST_TOKEN:
        raise ConfigError(
            f"{TOKEN} has {len(token)} characters, fewer than {LEAST_TOKEN}. Choose a longer random text."
        )
    return token


def is_own(host: str) -> bool:
    """Return whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str) -> list[str]:
    """Return the names that requests may call the endpoint by; other machines may have their own names for it."""
    return ["127.0.0.1", "localhost", "[::1]", host] if is_own(host) else ["*"]


def listen(host: str, port: int, where: str, where_port: str) -> socket.socket:
    """Return a socket that listens. **Raises**: `ConfigError` if the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror}. Choose another {where_port} or {where}."
        ) from None


def shown(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
