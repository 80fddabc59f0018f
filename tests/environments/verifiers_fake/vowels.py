"""An environment for the fake library: the share of vowels in an answer, or in two; the arguments choose its faults."""

import os
from pathlib import Path


class Rubric:
    def __init__(self, weights, grouped):
        self._weights, self.has_group_rewards = weights, grouped

    def _get_reward_weights(self):
        return self._weights


class Vowels:
    def __init__(self, rows, held, turns, fault, once, weights, grouped):
        self.dataset = None if rows < 0 else [row(i) for i in range(rows)]
        self.eval_dataset = [row(50 + i) for i in range(held)] or None
        self.rubric = Rubric(weights, grouped)
        self._turns, self._fault, self._once = turns, fault, once

    def build_dataset(self): ...

    def build_eval_dataset(self): ...

    async def run_rollout(self, input, client, model, sampling_args):
        if self._fault and input["example_id"] % 2 == 0:
            self._misbehave(input["example_id"])
            if self._fault == "fail":
                return {"reward": 0.0, "metrics": {}, "error": "no such word"}
        messages, said = list(input["prompt"]), ""
        for _ in range(self._turns):
            answer = await client.client.chat.completions.create(model=model, messages=messages, **sampling_args)
            text = answer["content"]
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "more"}]
            said += text
        share = sum(letter in "aei" for letter in said) / max(1, len(said))
        return {"reward": share, "metrics": {"share": share, "unknown": None}, "error": None}

    def _misbehave(self, number):
        if self._fault == "fail" and number % 4 == 0:
            raise KeyError("no such letter")
        if self._fault == "die" and not (self._once and Path(self._once).exists()):
            if self._once:
                Path(self._once).touch()
            os.write(2, b"the ground opened\n")
            os._exit(3)


def row(i):
    return {"prompt": [{"role": "user", "content": f"{i:02d}"}], "answer": "aei", "example_id": i}


def load_environment(rows=10, held=0, turns=1, fault="", once="", weights=(1.0,), grouped=False):
    print("noise on the standard output")
    return Vowels(rows, held, turns, fault, once, list(weights), grouped)
