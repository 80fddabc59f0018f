"""Models of other forms, computed by `transformers`, answer as our own decoder would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import logits_of, save_theirs, theirs_of

from ratchet.config.schema import PolicySection
from ratchet.core.errors import ModelError
from ratchet.engines.build import runner_for
from ratchet.engines.hosted_runner import HostedRunner
from ratchet.kernels.layout import layout_of
from ratchet.policy.hosted import HostedDecoder, rows_of
from ratchet.policy.policy import Policy

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")

TOKENS = np.random.default_rng(1).integers(0, 60, 30).tolist()
KINDS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    # family: settings, whether logits are more than a product, whether its cache must be found exact
    "gpt2": ({}, False, True),  # places are learned, the head is the embedding
    "phi": ({"partial_rotary_factor": 0.5, "hidden_act": "gelu_new"}, False, True),  # the head has a bias
    "gemma2": ({"sliding_window": 8, "hidden_activation": "gelu_pytorch_tanh"}, True, True),  # logits are capped
    "mamba": ({}, False, False),  # no attention at all
}


@pytest.fixture(params=KINDS, scope="module")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Any]:
    folder = tmp_path_factory.mktemp("model")
    theirs = save_theirs(request.param, folder, **KINDS[request.param][0])
    return Policy.load(folder), theirs


def test_it_is_computed_by_transformers_and_says_why(both: tuple[Policy, Any]) -> None:
    ours, theirs = both
    assert isinstance(ours.decoder, HostedDecoder)
    assert f'model_type "{ours.shape.family}" is not one this decoder computes' in ours.origin.hosted
    assert ours.decoder.whole is KINDS[ours.shape.family][1]
    assert ours.shape.num_parameters == sum(p.numel() for p in theirs.parameters())


def test_packed_answers_to_one_prompt_read_as_each_alone(both: tuple[Policy, Any]) -> None:
    ours, theirs = both
    prompt, a, b = TOKENS[:7], TOKENS[7:19], TOKENS[19:22]
    packed = torch.tensor([*prompt, *a, *b])
    with torch.no_grad():
        hidden = ours.decoder(packed, layout_of([7, 12, 3, 0], [-1, 0, 0, 0], ours.device))
    head = ours.decoder.head
    logits = hidden @ head.T if head.numel() else hidden
    torch.testing.assert_close(logits[:19], theirs_of(theirs, [*prompt, *a]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[19:], theirs_of(theirs, [*prompt, *b])[7:], rtol=1e-4, atol=1e-4)


def test_log_probabilities_entropy_and_divergence_are_those_of_the_logits(both: tuple[Policy, Any]) -> None:
    ours, theirs = both
    target = torch.tensor(TOKENS[1:])
    hidden = ours.decoder(torch.tensor(TOKENS[:-1]), layout_of([29], [-1], ours.device))
    pair = (hidden.detach(), ours.decoder.head.detach())
    stats = ours.decoder.ops.token_stats(hidden, ours.decoder.head, target, temperature=0.7, reference=pair)
    logp = (theirs_of(theirs, TOKENS[:-1]) / 0.7).log_softmax(-1)
    torch.testing.assert_close(stats.logprob, logp.gather(1, target[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stats.entropy, -(logp.exp() * logp).sum(-1), rtol=1e-4, atol=1e-4)
    assert float(stats.kl.detach().abs().max()) < 1e-5
    stats.logprob.sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in ours.decoder.parameters())


@pytest.mark.parametrize("cache", [True, False])
@torch.no_grad()
def test_decoding_gives_the_logits_of_a_whole_pass(both: tuple[Policy, Any], cache: bool) -> None:
    ours, theirs = both
    runner = HostedRunner(ours.hosted(), cache=cache)
    runner.load(ours.stored_weights(ours.weights()))
    if not cache:
        assert not runner.caches
    elif KINDS[ours.shape.family][2]:
        assert runner.caches
    whole = theirs_of(theirs, TOKENS)
    rows, first = runner.prefill([np.array(TOKENS[:9]), np.array(TOKENS[:2])], [1, 2], room=20)
    torch.testing.assert_close(first, whole[[8, 1]], rtol=1e-4, atol=1e-4)
    late: list[int] = []
    for i in range(9, 20):
        at = {rows[0][0]: i, **dict.fromkeys(rows[1], i - 7), **dict.fromkeys(late, i - 10)}
        step = runner.step(list(at), torch.tensor([TOKENS[place] for place in at.values()]))
        torch.testing.assert_close(step, whole[list(at.values())], rtol=1e-4, atol=1e-4)
        if i == 12:  # one row leaves, and another one joins later than the rest
            runner.release([rows[1].pop(0)])
            new, _ = runner.prefill([np.array(TOKENS[:3])], [1], room=20)
            late = new[0]


def test_what_is_saved_is_loaded_again_bit_for_bit(both: tuple[Policy, Any], tmp_path: Path) -> None:
    ours, theirs = both
    ours.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.fingerprint() == ours.fingerprint()
    assert again.tokenizer.fingerprint == ours.tokenizer.fingerprint
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs_of(back, TOKENS), theirs_of(theirs, TOKENS), rtol=1e-5, atol=1e-5)


def test_a_family_of_our_own_is_computed_by_transformers_where_that_is_asked_for(tmp_path: Path) -> None:
    theirs = save_theirs("qwen3", tmp_path)
    ours = Policy.load(tmp_path, asked=PolicySection(decoder="transformers"))
    assert ours.origin.hosted == 'policy.decoder = "transformers" asks for it.'
    torch.testing.assert_close(logits_of(ours.decoder, TOKENS), theirs_of(theirs, TOKENS), rtol=1e-5, atol=1e-5)


def test_a_model_in_bfloat16_is_computed_from_float32_weights(tmp_path: Path) -> None:
    theirs = save_theirs("gpt2", tmp_path)
    ours = Policy.load(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in ours.decoder.parameters()} == {torch.float32}
    difference = (logits_of(ours.decoder, TOKENS) - theirs_of(theirs, TOKENS)).abs()
    assert 0 < float(difference.max()) < 0.5


def test_layers_computed_again_give_the_same_gradient_and_no_dropout(tmp_path: Path) -> None:
    save_theirs("gpt2", tmp_path, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    ours = Policy.load(tmp_path)
    gradients = []
    for again in (False, True):
        ours.decoder.checkpointing = again
        hidden = ours.decoder(torch.tensor(TOKENS), layout_of([30], [-1], ours.device))
        hidden.square().sum().backward()
        gradients.append(torch.cat([p.grad.view(-1) for p in ours.decoder.parameters() if p.grad is not None]))
        ours.decoder.zero_grad(set_to_none=True)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-7)


def test_rows_hold_a_parent_before_each_of_its_children() -> None:
    tokens = torch.arange(10, 18)
    rows = rows_of(tokens, layout_of([2, 3, 1, 0, 2], [-1, 0, 0, 0, -1], torch.device("cpu")))
    found = [
        [t for t, m in zip(*pair, strict=True) if m]
        for pair in zip(rows.tokens.tolist(), rows.mask.tolist(), strict=True)
    ]
    assert found == [[10, 11, 12, 13, 14], [10, 11, 15], [10, 11], [16, 17]]
    assert rows.tokens.flatten()[rows.place].tolist() == tokens.tolist()


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    save_theirs("gpt2", tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 3'))
    with pytest.raises(ModelError, match=r"the weights hold no fitting tensor for transformer\.h\.2"):
        Policy.load(tmp_path)


def test_an_architecture_nobody_knows_is_refused_with_both_reasons(tmp_path: Path) -> None:
    save_theirs("gpt2", tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "gpt2"', '"model_type": "of_tomorrow"'))
    with pytest.raises(
        ModelError, match=r'model_type "of_tomorrow" is not one.*neither our own decoder nor transformers'
    ):
        Policy.load(tmp_path)


def test_the_runner_of_an_engine_is_transformers_where_the_form_is_another(tmp_path: Path) -> None:
    save_theirs("gpt2", tmp_path)
    policy = Policy.load(tmp_path)
    runner = runner_for(policy)
    runner.load(policy.weights())
    _, logits = runner.prefill([np.array(TOKENS)], [1], room=1)
    torch.testing.assert_close(logits[0], logits_of(policy.decoder, TOKENS)[-1], rtol=1e-4, atol=1e-4)
