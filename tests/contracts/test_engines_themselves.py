"""What our adapters promise of vLLM and SGLang, asked of the libraries themselves.

Skipped where they are not installed; docs/how-to/engines.md says how these are run. The contract of all engines is
asked of them in `test_engines.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sglang_itself
import torch
import vllm_itself
from engine_requests import CONTEXT, ask, kept_by_hand, logits_after, model, request_for
from engines_themselves import behind, fit, free_address

from ratchet.config.read import read_config
from ratchet.config.schema import EngineSection
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Completion, Request, Sampling
from ratchet.core.rollout import StopReason
from ratchet.engines.build import engine_for
from ratchet.engines.dense import DenseRunner
from ratchet.engines.elsewhere import ElsewhereEngine
from ratchet.engines.vllm_inside import TORN, held, read_back
from ratchet.engines.vllm_server import _call
from ratchet.engines.weight_folder import SHARED_MEMORY
from ratchet.policy.policy import Policy
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore

PLAIN = Sampling(max_tokens=12)
VLLM = ["vllm inside", "vllm served"]
SERVERS = ["vllm served", "sglang"]


def params(kinds: list[str]) -> list[object]:
    return [pytest.param(k, marks=(sglang_itself if k == "sglang" else vllm_itself).MARKS) for k in kinds]


@pytest.fixture(params=params([*VLLM, "sglang"]))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def only_vllm(test: Callable[..., None]) -> Callable[..., None]:
    for mark in vllm_itself.MARKS:
        test = mark(test)
    return test


class Opener:
    """Opens engines with a policy's weights; they are closed after the test."""

    def __init__(self) -> None:
        self.made: list[ElsewhereEngine] = []

    def __call__(self, kind: str, policy: Policy, sampling: Sampling = PLAIN) -> ElsewhereEngine:
        """An engine of a kind; servers are shared by all tests."""
        if kind == "vllm inside":
            return self._loaded(vllm_itself.inside_itself(policy, sampling), policy)
        if kind == "vllm served":
            mode = ("raw_logprobs", 64) if sampling.top_k else ()
            return self._loaded(behind("vllm", policy, sampling, vllm_itself.address(*mode)), policy)
        return self._loaded(behind("sglang", policy, sampling, sglang_itself.address()), policy)

    def alone(self, kind: str, policy: Policy) -> ElsewhereEngine:
        """An engine over a server of its own, which it starts."""
        url, name = free_address(), "sglang" if kind == "sglang" else "vllm"
        command = (sglang_itself if name == "sglang" else vllm_itself).serving(url)
        return self._loaded(behind(name, policy, PLAIN, url, command), policy)

    def _loaded(self, engine: ElsewhereEngine, policy: Policy) -> ElsewhereEngine:
        self.made.append(engine)
        engine.load(policy.weights(), 0, policy.fingerprint())
        return engine


@pytest.fixture
def opened() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for one in opener.made:
        one.close()


async def some_tokens(kind: str, engine: ElsewhereEngine) -> None:
    """Return when the answers in flight have a few tokens."""
    if kind == "sglang":
        await sglang_itself.some_tokens(sglang_itself.address())
    else:
        await vllm_itself.some_tokens(engine, "" if kind == "vllm inside" else vllm_itself.address())


def logprobs_by_hand(policy: Policy, request: Request, done: Completion) -> np.ndarray:
    """By one full forward pass of our own model; of greedy answers at temperature 1."""
    logits = logits_after(policy, request.prompt, done.output) / (request.sampling.temperature or 1.0)
    rows = torch.arange(len(done.output))
    return logits.log_softmax(-1)[rows, torch.from_numpy(done.output).long()].numpy()


def kept_jointly(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> tuple[list[int], np.ndarray]:
    """As `kept_by_hand`, by SGLang's rule: top-p, too, cuts the whole distribution, not what top-k has left."""
    ranked, p = kept_by_hand(logits, temperature, 1.0, top_k)
    return [v for i, v in enumerate(ranked) if p[ranked[:i]].sum() <= top_p], p


# --- What is sampled and recorded.


def test_log_probabilities_are_those_of_a_full_forward_pass_at_every_temperature(kind: str, opened: Opener) -> None:
    policy = fit()
    requests = [
        request_for(policy, text, seed=i, max_tokens=60, temperature=t)
        for i, t in enumerate((1.0, 0.0, 0.6, 0.01, 2.0))
        for text in ("1", "abc def")
    ]  # greedy and sampled ones share the batch
    for request, done in zip(requests, ask(opened(kind, policy), requests), strict=True):
        assert done.logprobs == pytest.approx(logprobs_by_hand(policy, request, done), abs=2e-5)
        assert not len(done.log_kept)


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 3), (0.7, 9), (0.7, 0)])
def test_a_cut_distribution_is_recorded_with_the_mass_it_kept(
    kind: str, top_p: float, top_k: int, opened: Opener
) -> None:
    if not top_k and kind != "sglang":
        pytest.skip("vLLM does not tell how much mass such a cut keeps; a run is refused")
    policy, cut = fit(), {"top_p": top_p, "top_k": top_k}
    engine = opened(kind, policy, Sampling(max_tokens=12, **cut))
    requests = [request_for(policy, seed=s, **cut) for s in range(8)]
    for request, done in zip(requests, ask(engine, requests), strict=True):
        for i, logits in enumerate(logits_after(policy, request.prompt, done.output).numpy()):
            kept, p = (kept_jointly if kind == "sglang" else kept_by_hand)(logits, 1.0, top_p, top_k)
            token = int(done.output[i])
            assert token in kept
            assert done.logprobs[i] == pytest.approx(np.log(p[token] / p[kept].sum()), abs=1e-4)
            assert done.log_kept[i] == pytest.approx(np.log(p[kept].sum()), abs=1e-4)


def test_an_answer_ends_at_an_end_token_a_stop_token_and_a_stop_string(kind: str, opened: Opener) -> None:
    policy = fit()
    engine = opened(kind, policy)
    free = ask(engine, [request_for(policy, seed=s, max_tokens=60, temperature=1.5) for s in range(12)])
    assert {d.stop for d in free} == {StopReason.END, StopReason.LENGTH}
    for done in free:
        assert (done.output[-1] in policy.tokenizer.end_tokens) == (done.stop is StopReason.END)
    long = max(free, key=lambda d: len(d.output))
    seed, middle = free.index(long), int(long.output[5])
    text = policy.tokenizer.decode(long.output[3:6])
    hot = {"seed": seed, "max_tokens": 60, "temperature": 1.5}
    by_token, by_string = ask(
        engine, [request_for(policy, stop_tokens=(middle,), **hot), request_for(policy, stop=("never", text), **hot)]
    )
    assert by_token.output.tolist() == long.output[: long.output.tolist().index(middle) + 1].tolist()
    assert by_token.stop is StopReason.END
    assert by_string.stop is StopReason.STOP
    assert policy.tokenizer.decode(by_string.output).endswith(text)


def test_tokens_are_drawn_as_often_as_their_probabilities_say(kind: str, opened: Opener) -> None:
    policy, draws = fit(), 600
    requests = [request_for(policy, seed=s, max_tokens=1) for s in range(draws)]
    done = ask(opened(kind, policy), requests)
    p = logits_after(policy, requests[0].prompt, done[0].output)[0].softmax(-1).numpy()
    counts = np.bincount([int(d.output[0]) for d in done], minlength=len(p))
    likely = p * draws >= 5
    chi = ((counts - draws * p)[likely] ** 2 / (draws * p)[likely]).sum()
    freedom = likely.sum()
    assert freedom >= 5, "the test needs a wide distribution"
    assert chi < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations


# --- Weights.


def test_new_weights_are_read_back_and_sampled_from(kind: str, opened: Opener) -> None:
    policy, other = fit(), fit(seed=5)
    engine = opened(kind, policy)
    engine.load(other.weights(), 1, other.fingerprint())
    place = engine._place
    if kind == "sglang":
        assert place._read_back[0] == other.fingerprint()
    else:
        inside = kind == "vllm inside"
        found = place._rpc("ratchet_loaded") if inside else engine._there(_call(place._server.http, "ratchet_loaded"))
        assert found == {"digest": other.fingerprint()}
    request = request_for(policy, max_tokens=40)
    done = ask(engine, [request])[0]
    assert done.logprobs == pytest.approx(logprobs_by_hand(other, request, done), abs=2e-5)
    assert (done.version, done.fingerprint) == (1, other.fingerprint())


@pytest.mark.parametrize("where", params(["vllm inside", "sglang"]))
@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("qwen2", True), ("qwen3", False)])
def test_every_family_takes_new_weights(where: str, family: str, tied: bool, opened: Opener) -> None:
    form = {"family": family, "tied": tied, "hidden": 64}  # 2 heads of 32: vLLM's Qwen2 takes no other size of head
    policy, other = fit(**form), fit(seed=5, **form)
    engine = opened(where, policy) if where == "vllm inside" else opened.alone(where, policy)
    for version, held_now in enumerate((other, policy), start=1):
        engine.load(held_now.weights(), version, held_now.fingerprint())
        if where == "vllm inside":
            assert engine._place._rpc("ratchet_loaded") == {"digest": held_now.fingerprint()}
        request = request_for(policy, max_tokens=40)
        done = ask(engine, [request])[0]
        assert done.logprobs == pytest.approx(logprobs_by_hand(held_now, request, done), abs=2e-5)


def test_each_token_is_sampled_by_the_version_it_is_told_under(kind: str, opened: Opener) -> None:
    policy, other = fit(), fit(seed=5)
    engine = opened(kind, policy)
    requests = [request_for(policy, seed=s, max_tokens=85, temperature=2.0) for s in range(8)]

    async def load_between() -> list[Completion]:
        waiting = [asyncio.ensure_future(engine.generate(r)) for r in requests]
        await some_tokens(kind, engine)
        engine.load(other.weights(), 1, other.fingerprint())
        return list(await asyncio.gather(*waiting))

    answers = asyncio.run(load_between())
    both = [(r, d) for r, d in zip(requests, answers, strict=True) if d.switches]
    assert len(both) >= 2, "the load came in the middle of some answers"
    for request, done in both:
        ((place, version),) = done.switches
        assert (done.version, version, done.fingerprint) == (0, 1, other.fingerprint())
        runner = DenseRunner(policy.shape, policy.decoder.ops, policy.device)
        runner.load(policy.weights())
        rows, logits = runner.prefill([request.prompt], [1], len(done.output))
        for i, token in enumerate(done.output):
            if i == place:
                runner.load(other.weights())
                if kind == "sglang":  # computes the answer so far anew; elsewhere what the old weights made of it stays
                    rows, logits = runner.prefill([np.concatenate([request.prompt, done.output[: i - 1]])], [1], 99)
            if i:
                logits = runner.step(rows[0], torch.tensor([int(done.output[i - 1])]))
            expected = float((logits[0].double() / 2.0).log_softmax(-1)[int(token)])
            assert done.logprobs[i] == pytest.approx(expected, abs=2e-5)


@only_vllm
def test_a_tied_head_that_was_left_behind_is_noticed(opened: Opener) -> None:
    policy, other = fit(), fit(seed=5)
    engine = opened("vllm inside", policy)
    worker = engine._place._engine.model_executor.driver_worker.worker
    vllm_model = worker.model_runner.get_model()
    if "cpu_linear" not in vars(vllm_model.lm_head):
        pytest.skip("this device computes with the weight itself")
    old = vllm_model.lm_head.cpu_linear
    engine.load(other.weights(), 1, other.fingerprint())
    vllm_model.lm_head.cpu_linear = old  # as a reload of vLLM 0.32 alone leaves it
    assert read_back(held(vllm_model), policy.shape.vocab, tied=True) == TORN


# --- Cancelling, dying, and what else happens to this process.


def test_a_cancelled_request_frees_its_slot(kind: str, opened: Opener) -> None:
    policy = fit()
    engine = opened(kind, policy)
    requests = [request_for(policy, seed=s, max_tokens=85, temperature=2.0) for s in range(12, 20)]
    length, request = max(((len(ask(engine, [r])[0].output), r) for r in requests), key=lambda found: found[0])
    before = sampled(kind)

    async def cancel() -> None:
        waiting = asyncio.ensure_future(engine.generate(request))
        await some_tokens(kind, engine)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(cancel())
    next_one = ask(engine, [request_for(policy, max_tokens=4)])[0]
    if kind == "vllm inside":
        assert not engine._place._engine.has_unfinished_requests()
        assert not engine._place._asked
    else:
        assert running(kind) == 0
        assert sampled(kind) - before < length + len(next_one.output), "it did not run to its end"


def sampled(kind: str) -> float:
    """Return how many tokens a server has sampled so far."""
    if kind == "sglang":
        return sglang_itself.tokens_so_far(sglang_itself.address())
    return 0.0 if kind == "vllm inside" else vllm_itself.count(vllm_itself.address(), vllm_itself.TOKENS)


def running(kind: str) -> float:
    """Return how many requests a server has in work."""
    if kind == "sglang":
        return float(sglang_itself.load_of(sglang_itself.address())["num_running_reqs"])
    return vllm_itself.count(vllm_itself.address(), "vllm:num_requests_running")


@pytest.mark.parametrize("where", params(SERVERS))
def test_a_server_that_is_killed_is_started_again_and_gives_the_same_answers(where: str, opened: Opener) -> None:
    policy = fit()
    engine = opened.alone(where, policy)
    requests = [request_for(policy, seed=s) for s in range(3)]
    before = ask(engine, requests)
    process = engine._place._server.process.process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after = ask(engine, requests)
    assert [d.output.tolist() for d in before] == [d.output.tolist() for d in after]
    assert engine.restarts == 1
    process = engine._place._server.process.process
    engine.close()
    assert process.poll() is not None, "the server ends with the engine"


@pytest.mark.parametrize("where", params(SERVERS))
def test_a_run_starts_its_server_and_agrees_with_it(where: str, tmp_path: Path) -> None:
    url, name = free_address(), "sglang" if where == "sglang" else "vllm"
    command = (sglang_itself if name == "sglang" else vllm_itself).serving(url)
    words = (
        "train.steps=2",
        "eval.tasks=0",
        "warm_start.steps=0",
        "explore.prompts_per_step=2",
        "explore.samples_per_prompt=4",
    )
    heads = ("policy.tiny.head_size=32", "policy.tiny.query_heads=2", "policy.tiny.key_heads=2")
    short = ("explore.max_tokens=24", f"policy.tiny.context={CONTEXT}")
    server = (f"engine.name={name}", f"engine.url={url}", f"engine.command={command}", "engine.start_s=300")
    folder = train(read_config(("judge", f"run.folder={tmp_path}", *words, *heads, *short, *server))).folder
    rows = RunStore.open(folder).metrics()
    assert len(rows) == 2
    assert all(row["sampler/logp_diff_max"] < 2e-5 for row in rows), rows


@only_vllm
def test_making_vllm_leaves_threads_and_generators_of_this_process_alone(opened: Opener) -> None:
    set_threads, state = torch.set_num_threads, torch.get_rng_state()
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    opened("vllm inside", fit())
    assert torch.set_num_threads is set_threads
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy


# --- What is refused.


@only_vllm
def test_a_vllm_on_cpus_that_splits_prompts_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU's generators have an offset")
    options = {"enforce_eager": True, "enable_chunked_prefill": True, "kv_cache_memory_bytes": vllm_itself.CACHE}
    section = EngineSection(name="vllm", options=options)
    with pytest.raises(ConfigError, match="--no-enable-chunked-prefill"):
        engine_for(section, fit(), context=CONTEXT, sampling=PLAIN, note=lambda text: None)


@only_vllm
def test_heads_that_a_cpu_has_no_kernel_for_are_refused_before_the_first_token() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU has kernels for them")
    with pytest.raises(ConfigError, match="heads have 16 channels"):
        vllm_itself.inside_itself(model(head_size=16), PLAIN)


@only_vllm
def test_an_argument_that_vllm_does_not_know_is_a_sentence() -> None:
    section = EngineSection(name="vllm", options={"enforce_eagerly": True})
    with pytest.raises(ConfigError, match=r"enforce_eagerly.*engine\.options"):
        engine_for(section, fit(), context=CONTEXT, sampling=PLAIN, note=lambda text: None)


# --- On Ray.


@only_vllm
def test_explorers_on_ray_have_a_vllm_each_that_agrees_with_the_trainer(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ("train.steps=2", "eval.tasks=0", "warm_start.steps=0", "explore.prompts_per_step=4", "engine.name=vllm")
    heads = ("policy.tiny.head_size=32", "policy.tiny.query_heads=2", "policy.tiny.key_heads=2")
    ray = ("cluster.name=ray", "cluster.explorers=1", f"engine.options.kv_cache_memory_bytes={vllm_itself.CACHE}")
    before = set(SHARED_MEMORY.glob("ratchet-weights-*"))
    folder = train(read_config(("judge", f"run.folder={tmp_path}", *words, *heads, *ray))).folder
    assert set(SHARED_MEMORY.glob("ratchet-weights-*")) == before, "weights in shared memory outlive their process"
    rows = RunStore.open(folder).metrics()
    assert len(rows) == 2
    assert all(row["sampler/logp_diff_max"] < 2e-5 for row in rows), rows
