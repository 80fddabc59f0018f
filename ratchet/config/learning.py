"""The sections of a recipe that say what is learned and how. Each field: type, unit, bound, sentence."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.config.curve import Curve, PositiveCurve, values_of
from ratchet.config.section import Section


class AlgorithmSection(BaseModel):
    """The method. Keys not listed here are options of the named algorithm."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field("grpo", min_length=1, description="A row of the table, or file.py:builder.")
    lr: PositiveCurve = Field(1e-6, description="Learning rate.")
    kl_coef: Curve = Field(0.0, description="Weight of the KL divergence to the starting policy in the loss.")
    kl: Literal["exact", "k1", "k2", "k3"] = Field(
        "exact",
        description="How that divergence is measured: exact sums over the vocabulary; k1, k2 and k3 estimate it from "
        "the sampled token.",
    )
    sampler_kl_coef: Curve = Field(0.0, description="Weight of the KL divergence to the sampling policy in the loss.")
    sampler_kl: Literal["k1", "k2", "k3"] = Field(
        "k3", description="How that divergence is estimated from the sampled token."
    )
    entropy_coef: Curve = Field(0.0, description="Weight of the entropy bonus in the loss.")
    correction: Literal["none", "token", "sequence", "geometric"] = Field(
        "none",
        description="Importance weight of the policy at the start of the step against the sampler: of each token, of "
        "the whole sample (product), or of its geometric mean.",
    )
    correction_mode: Literal["truncate", "mask"] = Field(
        "truncate", description="truncate cuts weights at correction_high; mask drops what lies outside the bounds."
    )
    correction_high: float = Field(2.0, ge=1, description="Largest importance weight.")
    correction_low: float = Field(0.0, ge=0, le=1, description="Smallest importance weight that mask lets through.")

    @property
    def options(self) -> dict[str, object]:
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _terms(self) -> AlgorithmSection:
        # On the policy's own tokens the mean gradient of log p is zero; on the sampler's it is not, so k1 serves there.
        if self.kl == "k1" and any(values_of(self.kl_coef)):
            raise ValueError(
                'kl = "k1" has a gradient of mean zero, so kl_coef cannot hold the policy back: set kl = "exact", '
                '"k2" or "k3", or kl_coef = 0 to measure only'
            )
        if self.correction_low and (self.correction == "none" or self.correction_mode == "truncate"):
            raise ValueError(
                f"correction_low = {self.correction_low:g} is used by masking only: set correction_mode = "
                '"mask" and a correction, or correction_low = 0'
            )
        return self


class RewardSection(Section):
    """What attempts are worth in training, where that is not their score. What is charted as reward stays the score."""

    weights: dict[str, Curve] = Field(
        default_factory=dict,
        description="What each named part of the score counts; empty takes the score itself.",
    )
    solved: float = Field(1.0, description="Score from which on an attempt is right, for the settings below.")
    length: Literal["none", "k1_5", "overlong"] = Field(
        "none",
        description="Term on length: k1_5 compares the attempts of a group, overlong punishes coming near a limit.",
    )
    length_weight: Curve = Field(1.0, description="Weight of the term on length.")
    overlong_length: int = Field(0, ge=0, description="Tokens at which overlong has taken a whole point.")
    overlong_buffer: int = Field(0, ge=0, description="Tokens before that over which it is taken, in equal parts.")
    toggle_period: int = Field(
        0,
        ge=0,
        description="Steps of each phase of Toggle: in every second one, long answers to problems that are solved "
        "often earn nothing; 0 never.",
    )
    toggle_solved: float = Field(0.5, description="Mean reward of a group from which on its problem is solved often.")
    toggle_percentile: float = Field(
        50.0, ge=0, le=100, description="Percentile of the lengths of right answers that is a problem's budget."
    )

    @property
    def is_used(self) -> bool:
        """Whether anything but the score itself is trained on."""
        return bool(self.weights) or self.length != "none" or bool(self.toggle_period)

    @model_validator(mode="after")
    def _overlong(self) -> RewardSection:
        given = bool(self.overlong_length or self.overlong_buffer)
        if given != (self.length == "overlong") or self.overlong_buffer > self.overlong_length:
            raise ValueError(
                f'length = "{self.length}", overlong_length = {self.overlong_length} and overlong_buffer = '
                f'{self.overlong_buffer} do not fit: set length = "overlong" and both, the buffer no longer than the '
                "length, or leave them out"
            )
        if self.length == "overlong" and not self.overlong_buffer:
            raise ValueError("overlong_buffer = 0 punishes nothing before the limit: set it to 1 or more")
        return self


class TrainSection(Section):
    """The optimiser and how a batch is cut."""

    steps: int = Field(100, ge=1, description="Training steps.")
    updates_per_batch: int = Field(
        1, ge=1, description="Optimiser steps per batch: its prompts are dealt into so many parts."
    )
    micro_batch_tokens: int = Field(4096, ge=1, description="Most tokens per forward pass; a longer sample goes alone.")
    max_logits: int = Field(1 << 25, ge=1024, description="Most logits held at once.")
    grad_clip: float = Field(1.0, gt=0, description="Largest gradient norm; longer gradients are scaled down to it.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's moment decays.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    optimiser: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit keeps the moments in eight bits; needs bitsandbytes and a GPU."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep only what enters each layer and compute the rest again for the backward pass: less memory, "
        "about a third more time.",
    )
    worst_case_first: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Before the first step, run the largest pass and fill the largest cache that the settings allow, "
        "so that memory runs out at once if it ever will; auto does so on a GPU.",
    )
    reference_kl: bool = Field(
        True, description="Measure the KL to the starting policy each step, even at coefficient 0."
    )
    overlap: bool = Field(
        False, description="Train in a thread while the sampler works on the steps that sync.offset lets it begin."
    )

    @model_validator(mode="after")
    def _betas(self) -> TrainSection:
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas = {self.betas} must lie in [0, 1)")
        return self


class CurriculumSection(Section):
    """Which problems are trained on when: first those that the policy sometimes solves, later more."""

    problems: int = Field(
        0, ge=0, description="Problems to choose from, from the beginning of the training split; 0 trains on all of it."
    )
    attempts: int = Field(16, ge=1, description="Attempts at a problem that decide whether it is solved.")
    solved: float = Field(1.0, description="Reward from which on an attempt has solved its problem.")
    every: int = Field(100, ge=0, description="Steps between admissions of further problems; 0 admits none.")
    count: int = Field(500, ge=1, description="Most problems admitted at a time.")
    rule: Literal["unsolved", "solvable"] = Field(
        "unsolved",
        description="Which waiting problems are admitted: some that no attempt solves yet, or those that one does.",
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="Success on the admitted problems below which none is admitted."
    )
    tried: int = Field(0, ge=0, description="Most waiting problems tried at an admission, drawn anew; 0 tries all.")


class PositivesSection(Section):
    """Successes of recent steps that are trained on once more, once the success rate no longer rises."""

    per_step: int = Field(0, ge=0, description="Successes trained on again in each step; 0 never does it.")
    recent: int = Field(20, ge=1, description="How many steps back they may come from.")
    solved: float = Field(1.0, description="Reward from which on an attempt is a success.")
    window: int = Field(20, ge=1, description="Steps whose mean success is compared with that of as many before.")
    gain: float = Field(0.01, description="Rise of that mean below which it counts as risen no longer.")
    start: int = Field(0, ge=0, description="Earliest step at which it may begin.")
