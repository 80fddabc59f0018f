"""Recorded rollouts as the page shows them: the groups of a step, one group, one attempt with its tokens."""

from __future__ import annotations

import gzip
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.board.curve import numbers, plain
from ratchet.charts.timeline import timeline_of
from ratchet.core.errors import ConfigError, RatchetError
from ratchet.core.rollout import Differences, Floats, Group, Rollout, Trajectory, Turn
from ratchet.policy.tokenizer import Tokenizer, load_tokenizer
from ratchet.store.run_store import RunStore

STEPS_KEPT = 6
"""Steps whose groups stay in memory, over all runs."""
PREVIEW = 280
"""Characters of a prompt or an answer in a list."""
MOST_TOKENS = 20_000
"""Tokens of a turn that are sent one by one; the text is whole all the same."""

NONE = np.zeros(0, dtype=np.float32)


class Shelf:
    """Groups and tokenizers that were read lately."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[Path, int, int], list[Group]] = OrderedDict()
        self._tokenizers: dict[Path, Tokenizer | None] = {}
        self._lock = threading.Lock()

    def groups(self, store: RunStore, step: int) -> list[Group]:
        """Return the groups of a step. Raises `ConfigError` if they were not kept or cannot be read."""
        path = store.groups_path(step)
        try:
            key = (path, step, path.stat().st_mtime_ns if path.is_file() else 0)
            with self._lock:
                if key in self._groups:
                    self._groups.move_to_end(key)
                    return self._groups[key]
            found = store.read_groups(step)
        except (OSError, EOFError, gzip.BadGzipFile, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"The rollouts of step {step} cannot be read: {error}. The file is damaged.") from None
        with self._lock:
            self._groups[key] = found
            while len(self._groups) > STEPS_KEPT:
                self._groups.popitem(last=False)
        return found

    def differences(self, store: RunStore, step: int) -> Differences | None:
        """Return how far the trainer was from the sampler at each token of a step; None if that was not recorded.

        Raises `ConfigError` if it cannot be read.
        """
        try:
            return store.read_differences(step)
        except (OSError, EOFError, gzip.BadGzipFile, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"How far trainer and sampler were apart at step {step} cannot be read: {error}. The file is damaged."
            ) from None

    def tokenizer(self, store: RunStore) -> Tokenizer | None:
        """Return the run's tokenizer, from any of its checkpoints; None if there is none."""
        with self._lock:
            if store.folder not in self._tokenizers:
                self._tokenizers[store.folder] = _tokenizer(store.folder / "checkpoints")
            return self._tokenizers[store.folder]


def _tokenizer(folder: Path) -> Tokenizer | None:
    for path in sorted(folder.glob("*/tokenizer.json")):
        try:
            return load_tokenizer(path.parent, (0,))  # nothing is generated here, so any end token will do
        except RatchetError:
            continue
    return None


def group_named(groups: Sequence[Group], index: int) -> Group:
    """Return the group of a task. Raises `ConfigError` if the step has none."""
    for group in groups:
        if group.index == index:
            return group
    raise ConfigError(f"This step has no task {index}.")


def attempt_named(group: Group, attempt: int) -> Rollout:
    """Return an attempt of a group; -1 is the greedy one. Raises `ConfigError` if there is none."""
    for rollout in [*group.rollouts, *([group.greedy] if group.greedy is not None and attempt == -1 else [])]:
        if rollout.attempt == attempt or rollout is group.greedy:
            return rollout
    raise ConfigError(f"Task {group.index} has no attempt {attempt}.")


def rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the groups of a step, widest spread of rewards first."""
    told = [_row(group) for group in groups]
    return sorted(told, key=lambda row: (-row["spread"], row["index"]))


def _row(group: Group) -> dict[str, Any]:
    values = [r.score.value for r in group.usable if r.score is not None]
    tokens = [r.output_tokens for r in group.rollouts]
    return {
        "index": group.index,
        "task_id": group.task.id,
        "prompt": group.task.prompt[-1].content[:PREVIEW] if group.task.prompt else "",
        "answer": str(group.task.answer)[:PREVIEW],
        "rewards": [None if r.score is None else r.score.value for r in group.rollouts],
        "statuses": [r.status.value for r in group.rollouts],
        "mean": float(np.mean(values)) if values else None,
        "spread": max(values) - min(values) if values else 0.0,
        "tokens": float(np.mean(tokens)) if tokens else 0.0,
        "truncated": sum(r.truncated for r in group.rollouts),
        "agents": sum(not t.trainable for r in group.rollouts for t in r.trajectories),
    }


def advantages(group: Group) -> dict[int, float]:
    """Return attempt -> (reward - mean) / standard deviation over the scored attempts of its group.

    It is what group-relative methods begin with. What a run trained on besides (filters, clipping, penalties) is
    decided at batch time and not recorded.
    """
    values = np.array([r.score.value for r in group.usable if r.score is not None])
    spread = float(values.std()) if len(values) else 0.0
    return {
        r.attempt: (r.score.value - float(values.mean())) / spread if spread else 0.0
        for r in group.usable
        if r.score is not None
    }


def opened(group: Group) -> dict[str, Any]:
    """Return a group with the texts of its attempts, best first."""
    gain = advantages(group)
    order = sorted(group.rollouts, key=lambda r: -(r.score.value if r.score is not None else float("-inf")))
    return {
        "index": group.index,
        "step": group.step,
        "task_id": group.task.id,
        "environment": group.task.environment,
        "prompt": [{"role": m.role, "content": m.content} for m in group.task.prompt],
        "answer": str(group.task.answer),
        "extras": {k: _told(v) for k, v in group.task.extras.items()},
        "attempts": [_attempt(r, gain.get(r.attempt)) for r in order],
        "greedy": _attempt(group.greedy, None) | {"attempt": -1} if group.greedy is not None else None,
    }


def _told(value: Any) -> str:
    """Return a fact of a task as text: pieces of code one below the other, the rest as Python has it."""
    if isinstance(value, list | tuple) and value and all(isinstance(piece, str) for piece in value):
        return "\n".join(value)
    return value if isinstance(value, str) else repr(value)


def _attempt(rollout: Rollout, advantage: float | None) -> dict[str, Any]:
    texts = [turn.text for t in rollout.trajectories if t.trainable for turn in t.turns]
    stop = [turn.stop.value for t in rollout.trajectories if t.trainable for turn in t.turns]
    return {
        "attempt": rollout.attempt,
        "reward": None if rollout.score is None else rollout.score.value,
        "parts": {} if rollout.score is None else plain(dict(rollout.score.parts)),
        "metrics": plain(dict(rollout.metrics)),
        "notes": dict(rollout.notes),
        "status": rollout.status.value,
        "error": rollout.error,
        "advantage": advantage,
        "tokens": rollout.output_tokens,
        "turns": len(texts),
        "agents": sum(not t.trainable for t in rollout.trajectories),
        "truncated": rollout.truncated,
        "stop": stop[-1] if stop else "",
        "seconds": rollout.seconds,
        "text": "\n".join(texts),
    }


def whole(
    group: Group, rollout: Rollout, tokenizer: Tokenizer | None, differences: Differences | None
) -> dict[str, Any]:
    """Return one attempt: the conversation of each agent with its tokens, and the timeline of all agents."""
    known = _by_turn(group, rollout, differences)
    line = timeline_of(group, rollout, "seconds") if rollout.trajectories and rollout.trajectories[0].turns else None
    return {
        **_attempt(rollout, advantages(group).get(rollout.attempt)),
        "step": group.step,
        "index": group.index,
        "prompt": [{"role": m.role, "content": m.content} for m in group.task.prompt],
        "answer": str(group.task.answer),
        "spelt": tokenizer is not None,
        "differences": "none" if differences is None else "some" if known else "untrained",
        "trajectories": [_trajectory(t, i, tokenizer, known) for i, t in enumerate(rollout.trajectories)],
        "timeline": None
        if line is None
        else {
            "lanes": [{"name": lane.name, "outcome": lane.outcome, "depth": lane.depth} for lane in line.lanes],
            "bars": [
                {"lane": b.lane, "begin": b.begin, "end": b.end, "tokens": b.tokens, "critical": b.critical}
                for b in line.bars
            ],
            "caption": line.caption,
        },
    }


def _by_turn(group: Group, rollout: Rollout, differences: Differences | None) -> dict[tuple[int, int], Floats]:
    """Return (trajectory, turn) -> the differences of its tokens; empty where the step did not train on the attempt."""
    values = (differences or {}).get((group.step, group.index, rollout.attempt))
    if rollout is group.greedy or values is None or len(values) != rollout.output_tokens or np.isnan(values).all():
        return {}
    turns = [(i, n) for i, t in enumerate(rollout.trajectories) if t.trainable for n in range(len(t.turns))]
    lengths = [len(rollout.trajectories[i].turns[n].output) for i, n in turns]
    parts = np.split(values.astype(np.float32), np.cumsum(lengths)[:-1])
    return dict(zip(turns, parts, strict=True))


def _trajectory(
    trajectory: Trajectory, place: int, tokenizer: Tokenizer | None, known: Mapping[tuple[int, int], Floats]
) -> dict[str, Any]:
    seen = np.zeros(0, dtype=np.int32)
    turns = []
    for number, turn in enumerate(trajectory.turns):
        # What came in since the turn before: a tool's or an agent's reply. The first prompt is the task itself.
        new = turn.prompt[len(seen) :] if number and np.array_equal(turn.prompt[: len(seen)], seen) else turn.prompt
        told = _turn(turn, new if number or not trajectory.trainable else new[:0], tokenizer)
        # A turn that was not sampled (a demonstration) has no log-probability to be far from.
        apart = known.get((place, number), NONE) if len(turn.logprobs) else NONE
        turns.append({**told, "differences": numbers(apart[:MOST_TOKENS].astype(np.float64))})
        seen = np.concatenate([turn.prompt, turn.output])
    return {
        "agent": trajectory.agent,
        "trainable": trajectory.trainable,
        "parent": trajectory.parent,
        "parent_turn": trajectory.parent_turn,
        "outcome": trajectory.outcome,
        "turns": turns,
    }


def _turn(turn: Turn, new: Any, tokenizer: Tokenizer | None) -> dict[str, Any]:
    output = turn.output[:MOST_TOKENS]
    logprobs = [round(float(v), 4) if np.isfinite(v) else None for v in turn.logprobs[:MOST_TOKENS]]
    return {
        "text": turn.text,
        "stop": turn.stop.value,
        "version": turn.version,
        "last_version": turn.last_version,
        "switches": [list(s) for s in turn.switches],
        "fingerprint": turn.fingerprint,
        "began": turn.began,
        "seconds": turn.seconds,
        "num_prompt": len(turn.prompt),
        "num_output": len(turn.output),
        "input": "".join(tokenizer.spell(new[:MOST_TOKENS])) if tokenizer is not None and len(new) else "",
        "pieces": tokenizer.spell(output) if tokenizer is not None else [],
        "ids": output.tolist(),
        "logprobs": logprobs if len(logprobs) == len(output) else [],
    }
