"""An environment as people write them for verifiers before 0.4: the share of vowels in an answer, or in two."""

from __future__ import annotations

import verifiers as vf
from datasets import Dataset


def share(completion, **kwargs) -> float:
    said = "".join(message["content"] or "" for message in completion if message["role"] == "assistant")
    return sum(letter in "aei" for letter in said) / max(1, len(said))


class TwoTurns(vf.MultiTurnEnv):
    """Asks for more after the first answer."""

    async def env_response(self, messages, state, **kwargs):
        return [{"role": "user", "content": "34"}]


def load_environment(turns: int = 1, rows: int = 20, rubric: str = "share", dataset: bool = True, held: int = 0):
    """The arguments choose what is wrong with it, too."""

    def questions(first: int, number: int) -> Dataset:
        return Dataset.from_list([{"question": f"{i:02d}", "answer": "aei"} for i in range(first, first + number)])

    print("noise on the standard output")

    def by_group(completions, **kwargs) -> list[float]:
        return [0.0 for _ in completions]

    functions = {"share": [share], "none": [], "group": [by_group]}[rubric]
    judged = vf.Rubric(funcs=functions, weights=[1.0] * len(functions))
    parts = {"rubric": judged, "system_prompt": "Say."}
    if dataset:
        parts["dataset"] = questions(0, rows)
    if held or not dataset:
        parts["eval_dataset"] = questions(50, held or 3)
    if turns == 1:
        return vf.SingleTurnEnv(**parts)
    return TwoTurns(max_turns=turns, **parts)
