"""Where every prompt, rollout and sampled token of a step went; each kind adds up to all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from ratchet.core.rollout import Group, Rollout, Status


def usable(group: Group, min_group: int, *, greedy: bool = False) -> bool:
    """Return whether a group can be trained on: enough scored attempts and, if needed, a scored greedy one."""
    scored = group.greedy is not None and group.greedy.score is not None
    return len(group.usable) >= min_group and (scored or not greedy)


def ledger(
    asked: Sequence[Group], trained: Sequence[Group], left: Mapping[str, Collection[Group]] | None = None
) -> dict[str, int]:
    """Return ``ledger/*`` rollouts, ``ledger_tokens/*`` tokens and ``ledger_prompts/*`` prompts by their fate.

    `asked` are the groups sampled for the step, `trained` those the trainer used; `left` names the groups that were
    not given to it, by reason. A rollout that failed is counted under its own status, wherever its group went.
    """
    entries: Counter[str] = Counter()
    fate_of = {id(g): "trained" for g in trained}
    for reason, groups in (left or {}).items():
        fate_of |= {id(g): reason for g in groups}
    for group in asked:
        fates: Counter[str] = Counter()
        for rollout in group.rollouts:
            fate = _fate(rollout, fate_of.get(id(group), "group_too_small"))
            fates[fate] += 1
            entries[f"ledger/{fate}"] += 1
            entries[f"ledger_tokens/{fate}"] += rollout.output_tokens
        entries[f"ledger_prompts/{'trained' if fates['trained'] else max(fates, key=lambda f: fates[f])}"] += 1
    return dict(entries)


def _fate(rollout: Rollout, of_group: str) -> str:
    if rollout.status is not Status.OK:
        return rollout.status.value
    # A rollout scored without asking the policy leaves nothing to train on.
    return of_group if of_group != "trained" or rollout.output_tokens else "no_tokens"
