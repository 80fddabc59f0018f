"""Groups as JSON and back: text and numbers in the open, per-token floats packed as base64 of little-endian float32."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.core.rollout import Floats, Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Task


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task as JSON values."""
    return {
        "environment": task.environment,
        "prompt": [{"role": m.role, "content": m.content} for m in task.prompt],
        "answer": task.answer,
        "extras": dict(task.extras),
    }


def task_from_json(row: Mapping[str, Any]) -> Task:
    """Inverse of `task_to_json`."""
    prompt = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
    return Task(row["environment"], prompt, row["answer"], row["extras"])


def group_to_json(group: Group) -> dict[str, Any]:
    """Return a group as JSON values."""
    return {
        "step": group.step,
        "index": group.index,
        "task_id": group.task.id,
        "task": task_to_json(group.task),
        "rollouts": [_rollout_to_json(r) for r in group.rollouts],
        **({} if group.greedy is None else {"greedy": _rollout_to_json(group.greedy)}),
    }


def group_from_json(row: Mapping[str, Any]) -> Group:
    """Inverse of `group_to_json`."""
    rollouts = tuple(_rollout_from_json(r, row["task_id"]) for r in row["rollouts"])
    greedy = _rollout_from_json(row["greedy"], row["task_id"]) if "greedy" in row else None
    return Group(task_from_json(row["task"]), row["index"], row["step"], rollouts, greedy)


def _rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    score = rollout.score
    return {
        "attempt": rollout.attempt,
        "status": rollout.status.value,
        "reward": None if score is None else score.value,
        "parts": {} if score is None else dict(score.parts),
        "error": rollout.error,
        "metrics": dict(rollout.metrics),
        **({"notes": dict(rollout.notes)} if rollout.notes else {}),
        "seconds": round(rollout.seconds, 4),
        "trajectories": [
            {
                "agent": t.agent,
                "trainable": t.trainable,
                "parent": t.parent,
                **({} if t.parent < 0 else {"parent_turn": t.parent_turn, "outcome": t.outcome}),
                "turns": [_turn_to_json(u) for u in t.turns],
            }
            for t in rollout.trajectories
        ],
    }


def _rollout_from_json(row: Mapping[str, Any], task_id: str) -> Rollout:
    return Rollout(
        task_id=task_id,
        attempt=row["attempt"],
        trajectories=tuple(
            Trajectory(
                tuple(_turn_from_json(u) for u in t["turns"]),
                t["agent"],
                t["trainable"],
                t["parent"],
                t.get("parent_turn", -1),
                t.get("outcome", ""),
            )
            for t in row["trajectories"]
        ),
        status=Status(row["status"]),
        score=None if row["reward"] is None else Score(row["reward"], row["parts"]),
        error=row["error"],
        metrics=row["metrics"],
        seconds=row["seconds"],
        notes=row.get("notes", {}),
    )


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    return {
        "text": turn.text,
        "stop": turn.stop.value,
        "version": turn.version,
        "last_version": turn.last_version,
        "fingerprint": turn.fingerprint,
        "began": round(turn.began, 4),
        "seconds": round(turn.seconds, 4),
        "prompt": turn.prompt.tolist(),
        "output": turn.output.tolist(),
        "logprobs_f32": _encode(turn.logprobs),
        "log_kept_f32": _encode(turn.log_kept),
        **({"switches": [list(s) for s in turn.switches]} if turn.switches else {}),
    }


def _turn_from_json(row: Mapping[str, Any]) -> Turn:
    return Turn(
        prompt=np.array(row["prompt"], dtype=np.int32),
        output=np.array(row["output"], dtype=np.int32),
        logprobs=_decode(row["logprobs_f32"]),
        log_kept=_decode(row["log_kept_f32"]),
        version=row["version"],
        last_version=row["last_version"],
        fingerprint=row["fingerprint"],
        stop=StopReason(row["stop"]),
        text=row["text"],
        seconds=row["seconds"],
        switches=tuple((place, version) for place, version in row.get("switches", ())),
        began=row.get("began", 0.0),
    )


def difference_to_json(key: tuple[int, int, int], values: NDArray[np.float16]) -> dict[str, Any]:
    """Return the differences of one rollout as JSON values; `key` is its step, index and attempt."""
    step, index, attempt = key
    packed = base64.b64encode(values.astype("<f2").tobytes()).decode()
    return {"step": step, "index": index, "attempt": attempt, "difference_f16": packed}


def difference_from_json(row: Mapping[str, Any]) -> tuple[tuple[int, int, int], NDArray[np.float16]]:
    """Inverse of `difference_to_json`."""
    values = np.frombuffer(base64.b64decode(row["difference_f16"]), dtype="<f2").astype(np.float16)
    return (row["step"], row["index"], row["attempt"]), values


def _encode(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _decode(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
