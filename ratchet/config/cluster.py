"""The section of a recipe that says how many processes a run has, and where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.config.section import Section


class ClusterSection(Section):
    """How many processes work on the run. What is learned does not depend on it."""

    name: Literal["local", "ray"] = Field(
        "local",
        description="local trains and samples in one process, or under torchrun; ray samples in actors of their own.",
    )
    ranks: int = Field(
        1,
        ge=1,
        description="Processes that train, each on its share of every batch, one per GPU; ratchet train starts them on "
        "this machine, or all but the first on Ray. Under torchrun leave it out.",
    )
    shard: Literal["none", "full"] = Field(
        "none",
        description="How weights and moments lie on the ranks: none keeps all of them on each (as DDP does), full a "
        "part on each (FSDP2).",
    )
    explorers: int = Field(1, ge=1, description="Explorers on Ray, each a process with an engine of its own.")
    environments: int = Field(
        0,
        ge=0,
        description="Processes on Ray, one core each on any node, in which environments play and judge; 0 leaves that "
        "to each explorer.",
    )
    address: str = Field(
        "", description="Address of a running Ray cluster to join, host:port or auto; empty starts Ray on this machine."
    )
    silence_s: float = Field(
        60.0,
        gt=0,
        description="Seconds without a sign of life after which an explorer on Ray is given up and replaced.",
    )
