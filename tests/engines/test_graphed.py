"""The runner for a GPU, computed step by step on a CPU: it must not matter that rows and positions are rounded up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_requests import model

from ratchet.core.rollout import Tokens
from ratchet.engines.dense import DenseRunner
from ratchet.engines.graphed import (
    POSITIONS,
    ROWS,
    GraphedRunner,
    Replay,
    rounded_positions,
    rounded_rows,
    why_no_graphs,
)
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy

CPU = torch.device("cpu")


def both(policy: Policy) -> tuple[GraphedRunner, DenseRunner]:
    ours = GraphedRunner(policy.shape, "float32", CPU, Replay(graphs=True))
    plain = DenseRunner(policy.shape, policy.decoder.ops, CPU)
    for runner in (ours, plain):
        runner.load(policy.weights())
    return ours, plain


def prompt(*lengths: int) -> list[Tokens]:
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(7, 40, n).astype(np.int32) for n in lengths]


def test_rows_are_rounded_so_that_few_kinds_of_steps_exist() -> None:
    assert [rounded_rows(n) for n in (1, 2, 3, 9, 33, ROWS, ROWS + 1, 3 * ROWS)] == [1, 2, 4, 16, 64, 64, 128, 192]
    assert len({rounded_rows(n) for n in range(1, 513)}) == 14
    assert all(rounded_rows(rounded_rows(n)) == rounded_rows(n) >= n for n in range(1, 600))
    assert [rounded_positions(n) for n in (1, POSITIONS, POSITIONS + 1)] == [POSITIONS, POSITIONS, 2 * POSITIONS]


def with_form(policy: Policy, **changes: object) -> Policy:
    """Return a policy of another form, its biases not zero."""
    shape = replace(policy.shape, **changes)
    decoder = Decoder(shape, policy.decoder.ops)
    decoder.initialise(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if name.endswith("_bias"):
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return Policy(decoder, policy.tokenizer, policy.device, policy.dtype)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"qk_norm": False, "qkv_bias": True},
        {"window": 6},
        {"unrotated": (1,)},
        {"out_bias": True, "mlp_bias": True},
    ],
)
def test_rows_that_come_and_go_give_the_logits_of_the_plain_runner(form: dict[str, object]) -> None:
    ours, plain = both(with_form(model(query_heads=4, key_heads=2), **form))
    open_rows: list[tuple[int, int]] = []
    rng = np.random.default_rng(1)
    for turn in range(8):
        if turn in (0, 2, 5):  # two prompts enter, one of them three times
            asked = prompt(3 + turn, 9)
            (mine, logits), (theirs, expected) = (r.prefill(asked, [3, 1], 20) for r in (ours, plain))
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
            open_rows += [(a, b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x, y, strict=True)]
        if turn in (3, 4, 6):  # from the middle, so that a hole must be filled
            gone = [open_rows.pop(1), open_rows.pop(len(open_rows) // 2)]
            ours.release([a for a, _ in gone])
            plain.release([b for _, b in gone])
        rng.shuffle(open_rows)
        tokens = torch.from_numpy(rng.integers(7, 40, len(open_rows)))
        logits = ours.step([a for a, _ in open_rows], tokens)
        torch.testing.assert_close(logits, plain.step([b for _, b in open_rows], tokens), atol=1e-5, rtol=1e-5)


def test_rows_that_are_not_asked_stay_where_they_were() -> None:
    policy = model()
    ours, plain = both(policy)
    ((a, b),), _ = ours.prefill(prompt(5), [2], 9)
    ((c, d),), _ = plain.prefill(prompt(5), [2], 9)
    for rows, same in (([b], [d]), ([b], [d]), ([a, b], [c, d]), ([b, a], [d, c])):
        tokens = torch.arange(10, 10 + len(rows))
        torch.testing.assert_close(ours.step(rows, tokens), plain.step(same, tokens), atol=1e-5, rtol=1e-5)


def test_the_cache_keeps_its_place_when_all_rows_leave_and_is_given_back_when_asked() -> None:
    ours, _ = both(model())
    rows, _ = ours.prefill(prompt(5), [3], 9)
    size = ours.cache_bytes
    ours.release(rows[0])
    ours.trim()
    assert ours.cache_bytes == 0
    rows, _ = ours.prefill(prompt(6), [3], 9)
    keys = ours._keys[0].data_ptr()
    ours.release(rows[0])
    ours.prefill(prompt(4), [4], 9)
    assert (ours._keys[0].data_ptr(), ours.cache_bytes) == (keys, size), "what was recorded reads from there"


def test_bfloat16_rounds_matrices_and_cache_and_nothing_else() -> None:
    policy = model()
    runner = GraphedRunner(policy.shape, "bfloat16", CPU, Replay(graphs=True))
    runner.load(policy.weights())
    kinds = {name.rpartition(".")[2]: p.dtype for name, p in runner._decoder.named_parameters()}
    assert {k for k, dtype in kinds.items() if dtype == torch.float32} == {
        "attn_norm", "q_norm", "k_norm", "mlp_norm", "final_norm",
    }  # fmt: skip
    exact, _ = both(policy)
    (rows, near), (_, whole) = (r.prefill(prompt(20), [1], 4) for r in (runner, exact))
    assert runner._keys[0].dtype == torch.bfloat16
    assert near.dtype == torch.float32
    step = runner.step(rows[0], torch.tensor([9])).log_softmax(-1)
    assert (step - exact.step([0], torch.tensor([9])).log_softmax(-1)).abs().mean() < 0.1
    assert (near.log_softmax(-1) - whole.log_softmax(-1)).abs().mean() < 0.1


def test_graphs_are_refused_where_they_cannot_be_had() -> None:
    assert why_no_graphs(CPU) == "the device is cpu, not cuda"
    assert not GraphedRunner(model().shape, "float32", CPU, Replay(graphs=True))._graphing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_replayed_step_gives_the_logits_of_one_that_is_not() -> None:
    policy, device = model(), torch.device("cuda")
    replayed, plain = (GraphedRunner(policy.shape, "float32", device, Replay(graphs=g)) for g in (True, False))
    for runner in (replayed, plain):
        runner.load({n: w.to(device) for n, w in policy.weights().items()})
        runner.prefill(prompt(5, 9), [2, 2], 40)
    for turn in range(6):
        if turn == 4:
            replayed.release([1])
            plain.release([1])
        rows = [r for r in range(4) if turn < 4 or r != 1]
        tokens = torch.arange(9, 9 + len(rows), device=device)
        torch.testing.assert_close(replayed.step(rows, tokens), plain.step(rows, tokens), atol=1e-4, rtol=1e-4)
    assert replayed.recorded == 1, "four rows and three are one kind of step"
