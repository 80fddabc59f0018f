"""Which panels a figure has: the reference figures of the studies, usable on any log, and panels of any metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.charts.canvas import BLUE, LIGHT_BLUE, MARKERS, RED
from ratchet.charts.labels import GREEN, ORANGE, PURPLE
from ratchet.core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Choice:
    """A metric, and what a figure calls it."""

    metric: str
    title: str = ""
    """Empty for the metric's own name; so is the label."""
    y_label: str = ""
    factor: float = 1.0
    """What values are multiplied by: 100 for per cent."""

    @property
    def shown_title(self) -> str:
        return self.title or self.metric


@dataclass(frozen=True, slots=True)
class Stripe:
    """What is drawn on one y axis: of several metrics the first that a run recorded."""

    choices: tuple[Choice, ...]
    colour: str
    marker: str
    raw_colour: str = ""
    """Not empty: raw points of this colour under a smooth curve, in place of a line with markers."""


@dataclass(frozen=True, slots=True)
class PanelPlan:
    """A panel of a figure."""

    left: Stripe
    right: Stripe | None = None
    """What is drawn on a second y axis of the same panel."""
    x_label: str = ""
    """Empty takes the axis's own."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A figure."""

    panels: tuple[PanelPlan, ...]
    x: str = "step"
    tops_steps: bool = False
    """Whether steps are written on a second x axis on top."""
    is_titled_by_setting: bool = False
    """Whether a panel's title is how its data was made (``sync_interval = 20``), where that is known."""
    columns: int = 2


REWARD = Choice("reward/mean", "Train Reward vs Step", "Train Reward")
LENGTH = Choice("len/response/mean", "Response Length vs Step", "Response Length (tokens)")

JUDGE = Preset((PanelPlan(Stripe((LENGTH,), BLUE, "o")), PanelPlan(Stripe((REWARD,), RED, "s"))))
"""RM-R1 (arXiv 2505.02387), its figure of cold-start training: length in blue circles, reward in red squares."""

STALE = Preset(
    (
        PanelPlan(Stripe((Choice("reward/mean", "Training Reward", "Training Reward"),), GREEN, "o")),
        PanelPlan(Stripe((Choice("kl/ref", "KL Divergence", "KL Divergence (nats)"),), PURPLE, "s")),
        PanelPlan(Stripe((Choice("entropy", "Entropy", "Entropy (nats)"),), ORANGE, "^")),
        PanelPlan(Stripe((Choice("len/response/mean", "Response Length", "Response Length (tokens)"),), BLUE, "D")),
    ),
    is_titled_by_setting=True,
    columns=4,
)
"""Yao et al. 2025 (arXiv 2509.24203): reward, divergence, entropy, length; titles tell the setting."""

REPRODUCE = Preset(
    (
        PanelPlan(
            Stripe(
                (
                    Choice("eval/test/env_testwriter/tokens", "TestWriter on held-out bugs", "Token Length"),
                    Choice("len/response/mean", "Response length and reward", "Token Length"),
                ),
                BLUE,
                "o",
            ),
            Stripe(
                (
                    Choice("eval/test/part_reproduced", "", "Reproduced Rate (%)", 100.0),
                    Choice("reward/parts/reproduced", "", "Reproduced Rate, Training (%)", 100.0),
                    Choice("reward/parts/accuracy", "", "Training Accuracy (%)", 100.0),
                    Choice("reward/mean", "", "Train Reward"),
                ),
                RED,
                "s",
            ),
            x_label="RL Training Steps",
        ),
    ),
    columns=1,
)
"""Kimi-Dev (arXiv 2509.23045), its figure of TestWriter's training: two y axes, length in blue, rate in red."""

SWARM = Preset(
    (
        PanelPlan(
            Stripe(
                (
                    Choice("reward/parts/accuracy", "Training Accuracy", "Accuracy (%)", 100.0),
                    Choice("reward/mean", "Training Reward", "Train Reward"),
                ),
                RED,
                "",
                LIGHT_BLUE,
            )
        ),
        PanelPlan(
            Stripe(
                (
                    Choice("env/parallelism", "Average Parallelism", "Agents per Stage"),
                    Choice("agents/spawned", "Agents Launched", "Agents per Step"),
                    Choice("len/response/mean", "Response Length", "Response Length (tokens)"),
                ),
                RED,
                "",
                LIGHT_BLUE,
            )
        ),
    ),
    x="flops",
    tops_steps=True,
)
"""Kimi K2.5 (arXiv 2602.02276): accuracy and parallelism over RL FLOPs, batches as points under a smooth curve."""

PRESETS: Mapping[str, Preset] = {"judge": JUDGE, "stale": STALE, "reproduce": REPRODUCE, "swarm": SWARM}
"""Study -> its figure; what is not listed gets that of `judge`."""


def preset_named(style: str) -> Preset:
    """Return a preset. Raises `ConfigError` for an unknown one."""
    if style not in PRESETS:
        raise ConfigError(f'There is no style "{style}".{nearest(style, PRESETS)} Known are {", ".join(PRESETS)}.')
    return PRESETS[style]


def plain(metrics: Sequence[str], right: str = "") -> Preset:
    """Return one panel per metric; `right` is drawn on a second y axis of each."""
    return Preset(
        tuple(
            PanelPlan(
                Stripe((Choice(metric, f"{metric}, {right}" if right else ""),), BLUE, MARKERS[0]),
                Stripe((Choice(right),), RED, "s") if right else None,
            )
            for metric in metrics
        )
    )
