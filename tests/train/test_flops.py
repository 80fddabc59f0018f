"""Floating-point operations are counted: against PyTorch's own counter, and pass by pass in a training step."""

from __future__ import annotations

import pytest
import torch
from builders import random_groups, tiny_policy
from torch.utils.flop_counter import FlopCounterMode

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.shape import ModelShape
from ratchet.policy.policy import Policy
from ratchet.policy.shape import shape_from_hf
from ratchet.run.costs import step_costs
from ratchet.train.experience import flatten
from ratchet.train.packing import packed
from ratchet.train.trainer import Trainer

SHAPES = [
    {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
     "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 96, "tie_word_embeddings": False},
    {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 6,
     "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512, "tie_word_embeddings": True},
]  # fmt: skip


def counted(settings: dict[str, object], batch: int, length: int, *, backward: bool) -> int:
    """Return what PyTorch counts for a transformers model of this shape."""
    transformers = pytest.importorskip("transformers")
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings, attn_implementation="eager"))
    tokens = torch.randint(0, int(str(settings["vocab_size"])), (batch, length))
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens).logits
        if backward:
            logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("settings", SHAPES)
@pytest.mark.parametrize("backward", [False, True])
def test_the_formula_agrees_with_pytorch_s_counter_within_a_percent(
    settings: dict[str, object], backward: bool
) -> None:
    shape = shape_from_hf({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **settings}, "test")
    batch, length = 3, 40
    # Its attention computes whole squares; ours counts what each token may see, so the square is asked for here.
    ours = shape.forward_flops(batch * length, batch * length * length, batch * length) * (3 if backward else 1)
    assert ours == pytest.approx(counted(settings, batch, length, backward=backward), rel=0.01)


def forward(shape: ModelShape, prompt: int, answers: list[int]) -> int:
    """Return the FLOPs of a prompt and answers that share it, by hand."""
    pairs = prompt * (prompt + 1) // 2
    tokens = prompt
    for n in answers:
        tokens += n - 1  # the last token predicts nothing
        pairs += (n - 1) * prompt + (n - 1) * n // 2
    return shape.forward_flops(tokens, pairs, 0)


def test_a_training_step_counts_every_pass_it_makes() -> None:
    groups = random_groups(0, groups=2, samples=3)
    policy, reference = tiny_policy(), tiny_policy(seed=1)
    shape = policy.shape
    samples = flatten(groups)
    logits = sum(s.num_trained for s in samples)
    once = sum(
        forward(shape, len(part[0].prompt), [len(s.tokens) for s in part])
        for part in ([s for s in samples if s.group == g] for g in range(2))
    )
    head = shape.forward_flops(0, 0, logits)

    def made(reference: Policy | None, **settings: object) -> int:
        trainer = Trainer(
            tiny_policy(),
            build_algorithm("asymre", {}),  # every sample has a gradient
            AlgorithmSection.model_validate({"lr": 1e-3, **settings}),
            TrainSection(micro_batch_tokens=4096),
            seed=0,
            reference=reference.decoder if reference else None,
        )
        return trainer.step(groups, 0).flops

    assert made(None) == 3 * once + 4 * head
    assert made(reference) == 3 * once + 4 * head + once + head, "the reference runs forward"
    assert made(None, correction="token") == 4 * once + 5 * head, "the start of the step is measured first"


def test_the_pairs_of_a_pass_are_what_each_token_sees() -> None:
    samples = flatten(random_groups(3, groups=2, samples=3))
    one = packed(samples, tuple(range(len(samples))), torch.device("cpu"))
    by_hand, seen = 0, set()
    for sample in samples:
        prompt, own = len(sample.prompt), len(sample.tokens) - 1
        if sample.prompt.tobytes() not in seen:
            by_hand += sum(range(1, prompt + 1))
            seen.add(sample.prompt.tobytes())
        by_hand += sum(prompt + i for i in range(1, own + 1))
    assert one.pairs == by_hand


def test_a_prompt_that_attempts_share_is_sampled_from_once() -> None:
    shape = tiny_policy().shape
    groups = random_groups(5, groups=1, samples=3)
    turns = [t for r in groups[0].rollouts for tr in r.trajectories for t in tr.turns]
    prompt = len(turns[0].prompt)
    by_hand = forward(shape, prompt, [len(t.output) for t in turns])
    by_hand += shape.forward_flops(0, 0, sum(len(t.output) for t in turns))
    assert step_costs(shape, groups)["flops/generate"] == by_hand
