"""Messages over a stream: what was written is read, and nothing else is taken for a message."""

from __future__ import annotations

import os
import struct

import pytest

from ratchet.sandbox.inside import frame

VALUES = [
    None,
    True,
    0,
    -1.5,
    1 << 80,
    "",
    'é\n"\\ \ud800 x',
    [],
    [[1, {"a": None}], {}],
    {"": 0, "b": [1.0, float("inf")]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_was_written_is_read(value: object) -> None:
    out, into = os.pipe()
    frame.write(into, value)
    os.close(into)
    assert frame.read(out) == value
    assert frame.read(out) is None
    os.close(out)


@pytest.mark.parametrize(
    "body",
    [b"", b" 1", b"1 ", b"1,2", b"[1", b"{1:2}", b"nul", b"\xff", b"[" * 100_000, b"1" * 5000],
    ids=lambda b: repr(b[:8]),
)
def test_what_is_no_message_is_none(body: bytes) -> None:
    with pytest.raises(frame.BadFrame):
        frame.unpack(body)


def test_a_message_that_breaks_off_or_says_it_is_too_long_is_none() -> None:
    for sent in (struct.pack("!I", 9) + b"[1", struct.pack("!I", frame.LARGEST + 1)):
        out, into = os.pipe()
        os.write(into, sent)
        os.close(into)
        with pytest.raises(frame.BadFrame):
            frame.read(out)
        os.close(out)
