"""A command that starts itself once per rank, unless it has been started so already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.run.launcher import start_ranks
from ratchet.run.ranks import started_as_rank


def ran_on_ranks(number: int, words: Sequence[str], options: Mapping[str, bool]) -> bool:
    """Run ``ratchet WORDS`` with the options that are on, on so many ranks; False if this process is one of them."""
    if started_as_rank():
        return False
    start_ranks(number, [*words, *(name for name, on in options.items() if on)])
    return True
