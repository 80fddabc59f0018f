"""The plan's numbers, worked out by hand for one config."""

from __future__ import annotations

from ratchet.config.plan import make_plan
from ratchet.config.read import config_from_tree
from ratchet.core.shape import ModelShape

SHAPE = ModelShape(
    family="qwen3", vocab=20, hidden=8, layers=2, query_heads=2, key_heads=1, head_size=4, intermediate=12, context=64,
    rope_base=100.0, norm_eps=1e-6, tied=False, qk_norm=True, qkv_bias=False,
)  # fmt: skip

TREE = {
    "environment": {"name": "judge"},
    "explore": {"prompts_per_step": 3, "samples_per_prompt": 4, "max_tokens": 5},
    "train": {"steps": 10, "updates_per_batch": 2, "max_logits": 2048},
    "engine": {"max_rows": 8},
    "sync": {"interval": 4, "offset": 1},
}


def test_the_plan_of_a_small_config_has_the_numbers_worked_out_by_hand() -> None:
    # Weights. qkv: (2 + 2*1) heads * 4 = 16 rows of 8 = 128; out: 8 * 8 = 64; feed-forward: 3 * 8 * 12 = 288; two
    # norms: 16; query and key norms: 8. Layer: 504, twice 1008. Embedding and head: 2 * 20 * 8 = 320; last norm: 8.
    plan = make_plan(config_from_tree(TREE), SHAPE, prompt_tokens=6)
    assert plan.parameters == SHAPE.num_parameters == 1008 + 320 + 8
    assert (plan.samples_per_step, plan.samples_per_update) == (12, 6.0)
    assert (plan.total_samples, plan.total_updates) == (120, 20)
    assert plan.max_generated_tokens_per_step == plan.max_trained_tokens_per_step == 60
    # Bytes: weights and the reference in float32, two moments, gradients, the engine's copy.
    assert plan.weights_bytes == 1336 * 4 * 2
    assert (plan.optimiser_bytes, plan.gradients_bytes, plan.engine_weights_bytes) == (1336 * 8, 1336 * 4, 1336 * 4)
    # Cache: 8 rows of 11 tokens, 2 (k and v) * 2 layers * 1 head * 4 channels = 16 numbers a token.
    assert plan.cache_bytes == 8 * 11 * 16 * 4
    # Activations of a pass of 4096 tokens, per token and layer: 4 * 8 + 16 + 8 + 3 * 12 = 92 numbers.
    assert plan.activations_bytes == 4 * 4096 * 2 * 92
    # Forward. Tokens: 3 * 6 + 12 * 5 = 78, each through 2 * (128 + 64 + 288) = 960 weights, 2 operations each.
    # Pairs: prompts 3 * 21 = 63, answers 12 * (5 * 6 + 15) = 540; 4 * 2 layers * 2 heads * 4 channels = 64 each.
    # Logits: 60 rows of 2 * 20 * 8 = 320.
    forward = 2 * 960 * 78 + 64 * (63 + 540) + 320 * 60
    assert plan.generate_flops_per_step == forward
    assert plan.train_flops_per_step == 4 * forward
    # version_for = max(0, 4 floor((k - 1) / 4)): versions 0 0 0 0 0 4 4 4 4 8, staleness 0 1 2 3 4 1 2 3 4 1.
    assert (plan.staleness_max, plan.staleness_mean) == (4, 2.1)


def test_a_context_shorter_than_prompt_and_answer_shortens_the_answer() -> None:
    plan = make_plan(config_from_tree({**TREE, "policy": {"context": 8}}), SHAPE, prompt_tokens=6)
    assert plan.context_tokens == 8
    assert plan.max_generated_tokens_per_step == 12 * 2


def test_a_context_beyond_the_models_own_is_cut_to_it() -> None:
    plan = make_plan(config_from_tree({**TREE, "policy": {"context": 1000}}), SHAPE, prompt_tokens=6)
    assert plan.context_tokens == 64


def test_an_adapter_is_all_that_has_gradients_and_moments() -> None:
    adapted = {**TREE, "policy": {"model": "somewhere", "dtype": "bfloat16", "lora": {"rank": 2}}}
    plan = make_plan(config_from_tree(adapted), SHAPE, prompt_tokens=6, trained=100)
    # The frozen weights in bfloat16, once: they are their own reference. The adapter in float32.
    assert plan.weights_bytes == 1336 * 2 + 100 * 4
    assert (plan.optimiser_bytes, plan.gradients_bytes) == (100 * 8, 100 * 4)


def test_recomputed_layers_keep_one_number_per_channel_and_one_layers_insides() -> None:
    tree = {**TREE, "train": {**TREE["train"], "gradient_checkpointing": True}}
    plan = make_plan(config_from_tree(tree), SHAPE, prompt_tokens=6)
    assert plan.activations_bytes == 4 * 4096 * (2 * 8 + 92)
