"""Messages over a stream: four bytes of length, then JSON. Both ends check what they read."""

from __future__ import annotations

import json
import os
import struct
from json.scanner import make_scanner

LARGEST = 16 << 20
"""Most bytes of a message; a longer one is an error."""


_ENCODER = json.JSONEncoder(separators=(",", ":"))
"""Made once: a process of a check must copy each page of memory that it writes to."""
_SCAN = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # what it needs to know, a decoder knows
"""For the same reason without what `json.loads` does besides: no message of ours has white space around it."""


class BadFrame(Exception):
    """What came is not a message."""


def pack(value: object) -> bytes:
    body = _ENCODER.encode(value).encode()
    if len(body) > LARGEST:
        raise BadFrame(f"a message of {len(body)} bytes")
    return struct.pack("!I", len(body)) + body


def unpack(body: bytes) -> object:
    """Return the value of a message's body. **Raises** `BadFrame`."""
    try:
        text = body.decode()
        value, end = _SCAN(text, 0)
    except (ValueError, RecursionError, StopIteration) as error:
        raise BadFrame("not JSON") from error
    if end != len(text):
        raise BadFrame("not one value alone")
    return value


def write(fd: int, value: object) -> None:
    left = memoryview(pack(value))
    while left:
        left = left[os.write(fd, left) :]


def read(fd: int) -> object:
    """Return the next message, or None at the end of the stream. **Raises** `BadFrame`."""
    head = _exactly(fd, 4)
    if head is None:
        return None
    (length,) = struct.unpack("!I", head)
    if length > LARGEST:
        raise BadFrame(f"a message of {length} bytes")
    body = _exactly(fd, length)
    if body is None:
        raise BadFrame("cut off")
    return unpack(body)


def _exactly(fd: int, length: int) -> bytes | None:
    parts = []
    while length:
        part = os.read(fd, min(length, 1 << 20))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
