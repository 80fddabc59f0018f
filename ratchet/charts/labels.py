"""What methods are called in comparisons, and their colours. Knows names and options, not runs.

The defaults of the options stand here a second time, because charts load no torch and the table of algorithms does; a
test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.charts.canvas import BLUE, MARKERS

GREEN, PURPLE, ORANGE, GREY = "#009E73", "#8B4FB3", "#E68A00", "#707070"
"""The colours of the reference figure: GRPO, REC, RED-Weight, REINFORCE."""

OTHERS = (BLUE, "#C8321F", "#56B4E9", "#CC79A7", "#000000", "#8C6D31", "#3B3EAC", "#7FB800")
"""For methods without a colour of their own, in order."""


@dataclass(frozen=True, slots=True)
class Published:
    """A method as its paper calls it."""

    title: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Its options as the table of algorithms sets them."""
    shown: tuple[tuple[str, ...], ...] = ()
    """Options that the legend always gives in brackets; equal numbers of a bracket are written once."""
    colour: str = ""


CLIP = {"clip_low": 0.2, "clip_high": 0.2}
REC = CLIP | {"importance": False}
BRACKET = (("clip_low", "clip_high"),)

PUBLISHED: Mapping[str, Published] = {
    "grpo": Published("GRPO", CLIP | {"std": True}, colour=GREEN),
    "rec_one_side": Published("REC-OneSide", REC, BRACKET, PURPLE),
    "rec_two_side": Published("REC-TwoSide", REC, BRACKET),
    "rec_ring": Published(
        "REC-Ring", REC | {"outer_low": 0.6, "outer_high": 2.0}, (*BRACKET, ("outer_low", "outer_high"))
    ),
    "red_weight": Published("RED-Weight", {"temperature": 1.0}, colour=ORANGE),
    "red_drop": Published("RED-Drop"),
    "red_adaptive": Published("RED-Adaptive", CLIP | {"temperature_min": 0.8}, BRACKET),
    "dr_grpo": Published("Dr.GRPO", CLIP | {"length": 1024}),
    "dapo": Published("DAPO", {"clip_low": 0.2, "clip_high": 0.28, "overlong_length": 0, "overlong_buffer": 0}),
    "gspo": Published("GSPO", {"clip_low": 3e-4, "clip_high": 4e-4}),
    "gmpo": Published("GMPO", {"log_clip_low": 0.4, "log_clip_high": 0.4}),
    "cispo": Published("CISPO", {"cap_low": 0.0, "cap_high": 1.28}),
    "sapo": Published("SAPO", {"gate_positive": 1.0, "gate_negative": 1.05}),
    "rloo": Published("RLOO"),
    "remax": Published("ReMax"),
    "ppo": Published(
        "PPO",
        CLIP | {"gamma": 1.0, "lam": 0.95, "whiten": True, "value_clip": 0.2, "critic_lr": 1e-5},
    ),
    "topr": Published("TOPR", {"sequence": True}),
    "asymre": Published("AsymRE", {"baseline_shift": -0.1}, (("baseline_shift",),)),
    "opmd_kimi": Published("OPMD", {"penalty": 0.1}),
    "opmd_pairwise": Published("OPMD-Pairwise", {"tau": 1.0}),
    "min_opmd": Published("Min-OPMD", {"tau": 1.0, "soft_baseline": False}),
    "k1_5": Published("Kimi k1.5", {"tau": 0.1}),
    "k2_5": Published("Kimi K2.5", {"log_clip_low": 0.2, "log_clip_high": 0.2, "tau": 0.1}),
    "reinforce_pp": Published("REINFORCE++", CLIP),
    "reinforce_pp_baseline": Published("REINFORCE++ with baseline", CLIP),
    "distill": Published("Distillation", {"reward_coef": 0.0}),
    "sft": Published("SFT"),
    "reinforce": Published("REINFORCE", {"std": False}, colour=GREY),
}
"""Rows of the table of algorithms, in the order in which legends and tables list them."""


def method_label(name: str, options: Mapping[str, Any]) -> str:
    """Return the legend text of an algorithm: its published name, then options that are not its defaults."""
    known = PUBLISHED.get(name, Published(name))
    values = {**known.defaults, **options}
    text, told = known.title, {"importance"} & known.defaults.keys()
    if told:
        text += "-IS" if values["importance"] else "-NoIS"
    brackets = []
    for keys in known.shown:
        numbers = list(dict.fromkeys(_said(values[key]) for key in keys))
        brackets.append(f"({', '.join(numbers)})")
        told |= set(keys)
    rest = [
        f"{key} = {_said(values[key])}"
        for key in sorted(values)
        if key not in told and not (key in known.defaults and values[key] == known.defaults[key])
    ]
    return ", ".join([" ".join([text, *brackets]), *rest])


def method_order(name: str) -> tuple[int, str]:
    """Return where an algorithm stands in legends and tables, as a key to sort by."""
    known = list(PUBLISHED)
    return (known.index(name) if name in PUBLISHED else len(known), name)


def styles(algorithms: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return label -> (colour, marker) for labels and the algorithms behind them, in the order given.

    The first label of an algorithm that has a colour of its own gets it; the others take the next that is free.
    """
    owned: dict[str, str] = {}
    for label, name in algorithms.items():
        colour = PUBLISHED[name].colour if name in PUBLISHED else ""
        if colour and colour not in owned.values():
            owned[label] = colour
    free = iter(OTHERS * (1 + len(algorithms) // len(OTHERS)))
    return {label: (owned.get(label) or next(free), MARKERS[i % len(MARKERS)]) for i, label in enumerate(algorithms)}


def told_value(value: Any) -> str:
    """Return a setting as a legend writes it: schedules by their shape, the rest as they stand."""
    if isinstance(value, Mapping):
        if value.get("kind") == "steps":
            return " then ".join(_stairs(value["values"]))
        shape = [f"{_said(value[k])}" for k in ("start", "end", "value") if k in value]
        return f"{value.get('kind', 'a table')} {' to '.join(shape)}".strip()
    return _said(value)


def _stairs(values: Mapping[Any, Any]) -> Sequence[str]:
    """Return the stairs of a schedule: the first value alone, the others with the step from which they hold."""
    steps = sorted((int(step), value) for step, value in values.items())
    return [_said(value) if step == 0 else f"{_said(value)} from step {step}" for step, value in steps]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_said(v) for v in value)}]"
    text = " ".join(str(value).split())
    return (text if len(text) <= 40 else f"...{text[-37:]}") or '""'
