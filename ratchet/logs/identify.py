"""Whose log it is: every table is asked how many of the keys it knows, and how many of them nobody else knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ratchet.core.errors import ConfigError
from ratchet.logs.frameworks.entry import Framework, match, own_match
from ratchet.logs.frameworks.plain import PLAIN
from ratchet.logs.frameworks.table import DETECTED, framework_named
from ratchet.logs.log import Found, Training

CLEAR = 0.6
"""Share of the two best frameworks' scores that the best must have."""
HINT = 3.0
"""What the shape of the rows counts, in keys that nobody else knows."""
ENOUGH, LEAST = 2.0, 0.5
"""Score from which a claim is sure, and below which there is none."""
WORKINGS = frozenset({"step", "_step", "global_step", "_timestamp", "_runtime", "timestamp", "time", "epoch", "Step"})
"""Keys that say nothing of the training."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What speaks for a framework."""

    framework: Framework
    score: float
    keys: tuple[str, ...]
    """Keys it knows and that not every program might have, the rarest first."""
    num_alone: int
    """Keys nobody else knows."""
    hint: str


def identify(shapes: Mapping[str, set[str]], asked: str) -> tuple[Framework, Found]:
    """Return the framework that wrote rows of these shapes with these keys, and the evidence.

    `asked` is a framework's name, or ``auto``. Raises `ConfigError` where the evidence points to two.
    """
    if asked != "auto":
        framework = framework_named(asked)
        return framework, Found(framework.name, "as asked for")
    keys = {key for some in shapes.values() for key in some} - WORKINGS
    claims = sorted(_claims(keys, shapes), key=lambda c: -c.score)
    best = claims[0]
    rivals = [c for c in claims[1:] if best.framework not in (c.framework.extends, c.framework)]
    second = next(c for c in rivals if c.framework is not best.framework.extends)
    if best.score < LEAST or (not best.keys and not best.hint):
        return PLAIN, Found(PLAIN.name, "no framework known here has these keys", sure=False)
    _refuse_contradiction(best, second, shapes)
    sure = best.score >= ENOUGH and best.score / (best.score + second.score) >= CLEAR
    others = f"; {second.framework.title} knows {len(second.keys)} of them too" if not sure and second.keys else ""
    return best.framework, Found(best.framework.name, _evidence(best, len(keys)) + others, sure)


def _claims(keys: set[str], shapes: Mapping[str, set[str]]) -> Iterable[_Claim]:
    knows = {f.name: {k for k in keys if (m := own_match(f, k)) is not None and not m.key.common} for f in DETECTED}
    shared = {key: sum(key in known for known in knows.values()) for key in keys}
    for framework in DETECTED:
        own = knows[framework.name]
        # What extends another's table claims its keys as well, once it has shown one of its own.
        extended = knows[framework.extends.name] if framework.extends is not None and own else set()
        known = sorted(own | extended, key=lambda key: (shared[key], key))
        hint = next((why for shape, why in framework.hints.items() if shape in shapes), "")
        # Keys that any program might have decide only between equals.
        num_common = sum(match(framework, key) is not None for key in keys)
        score = sum(1 / shared[key] for key in known) + HINT * bool(hint) + 0.01 * num_common
        yield _Claim(framework, score, tuple(known), sum(shared[k] == 1 for k in known), hint)


def _evidence(claim: _Claim, num_keys: int) -> str:
    told = [claim.hint] if claim.hint else []
    if claim.keys:
        told.append(f"{', '.join(claim.keys[:3])}{'' if len(claim.keys) <= 3 else ', ...'}")
        told.append(f"it knows {len(claim.keys)} of {num_keys} keys as its own")
    return "; ".join(told)


def _refuse_contradiction(best: _Claim, second: _Claim, shapes: Mapping[str, set[str]]) -> None:
    """Raise if rows of one shape are one framework's and rows of another shape another's."""
    if best.num_alone < 3 or second.num_alone < 3:
        return
    mine = {shape for shape, keys in shapes.items() if keys & set(best.keys)}
    theirs = {shape for shape, keys in shapes.items() if keys & set(second.keys)}
    if (mine & theirs and second.score > 0.5 * best.score) or (mine and theirs and not mine & theirs):
        raise ConfigError(
            f"The log speaks for two frameworks: {best.framework.title} ({', '.join(best.keys[:3])}) and "
            f"{second.framework.title} ({', '.join(second.keys[:3])}). Are two logs in one file? "
            f"Say which to read: framework {best.framework.name} or {second.framework.name}."
        )


def kind_of_training(keys: set[str], has_reward: bool) -> Training:
    """Return what kind of training keys tell of."""
    plain = {key.removeprefix("train/").removeprefix("train_") for key in keys}
    if {"rewards/margins", "logps/chosen"} & plain or {"rewards/chosen", "rewards/rejected"} <= plain:
        return Training.PREFERENCE
    if has_reward:
        return Training.RL
    if "mean_token_accuracy" in plain or ("loss" in plain and {"learning_rate", "lr", "eval_loss"} & (plain | keys)):
        return Training.SFT
    return Training.UNCLEAR
