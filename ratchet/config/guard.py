"""The section of a recipe that says what a run may do by itself when something goes wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.config.section import Section

Action = Literal["note", "keep", "pause", "rollback", "stop"]
"""note: an event and a line; keep: the checkpoint before it began is never removed; pause: the run stops cleanly and
`ratchet resume` goes on; rollback: it goes on from the last good checkpoint with a remedy; stop: it ends as failed."""
RemedyName = Literal["sync", "lr", "kl", "mask", "optimiser"]


class GuardSection(Section):
    """What the run may do by itself when the doctor's rules find something while it trains."""

    enabled: bool = Field(False, description="Look after every step, and act.")
    start: int = Field(10, ge=0, description="Steps before which nothing is acted on: a beginning is rough.")
    every: int = Field(1, ge=1, description="Steps between looks.")
    on_warning: Action = Field("keep", description="What a finding of severity warning leads to.")
    on_error: Action = Field("rollback", description="What a finding of severity error leads to.")
    rollbacks: int = Field(3, ge=0, description="Most rollbacks of a run.")
    then: Literal["note", "pause", "stop"] = Field("stop", description="What happens when these are used up.")
    remedies: tuple[RemedyName, ...] = Field(
        ("sync", "lr", "kl", "mask", "optimiser"),
        description="What a rollback may change, one at a time, in this order unless the finding asks for another: "
        "sample with fresher weights, a third of the learning rate, a KL term, a mask on importance weights, forget "
        "the optimiser's moments. Empty: go back and change nothing.",
    )
