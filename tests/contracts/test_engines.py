"""The contract of engines: what `core.protocols.Engine` promises, asked of every engine there is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sglang_itself
import torch
import vllm_itself
from builders import within
from engine_requests import CONTEXT, ask, kept_by_hand, logits_after, model, request_for
from engine_servers import Served, inside, served, standing_in_for_vllm
from engines_themselves import behind, fit
from torch import Tensor

from ratchet.core.errors import RunError
from ratchet.core.protocols import Completion, Engine, Request, Sampling
from ratchet.core.rollout import StopReason, Tokens
from ratchet.engines.build import runner_for
from ratchet.engines.dense import DenseRunner
from ratchet.engines.elsewhere import ElsewhereEngine
from ratchet.engines.graphed import GraphedRunner, Replay
from ratchet.engines.local import LocalEngine
from ratchet.engines.native_runner import NativeRunner
from ratchet.engines.runner import Runner
from ratchet.engines.scripted import ScriptedEngine
from ratchet.engines.vllm_server import HOTTEST
from ratchet.kernels import native
from ratchet.policy.policy import Policy

LOCAL = [
    "dense",
    "graphed",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason=native.why_not() or "")),
    pytest.param(
        "transformers",
        marks=[
            pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
            pytest.mark.filterwarnings("default"),  # its warnings are its own
        ],
    ),
]


@dataclass
class Counting:
    """A runner that counts its open rows."""

    runner: Runner
    open: set[int] = field(default_factory=set)
    most: int = 0
    prefilled: list[int] = field(default_factory=list)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.runner.load(weights)

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        rows, logits = self.runner.prefill(prompts, copies, room)
        self.open |= {r for each in rows for r in each}
        self.most = max(self.most, len(self.open))
        self.prefilled += [len(p) for p in prompts]
        return rows, logits

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        assert set(rows) == self.open
        return self.runner.step(rows, tokens)

    def release(self, rows: Sequence[int]) -> None:
        self.open -= set(rows)
        self.runner.release(rows)


AWAY = [
    "vllm-server",
    "vllm-inside",
    "sglang",
    pytest.param("vllm-itself", marks=vllm_itself.MARKS),
    pytest.param("vllm-itself-served", marks=vllm_itself.MARKS),
    pytest.param("sglang-itself", marks=sglang_itself.MARKS),
]
"""The first three: our adapters over fakes that speak the documented APIs. The others: the libraries themselves."""


ITSELF = ("vllm-itself", "vllm-itself-served", "sglang-itself")


def model_for(kind: str) -> Policy:
    return fit() if kind in ITSELF else model()


def hot(kind: str) -> float:
    """A temperature at which answers are long."""
    return HOTTEST if kind in ITSELF else 3.0


def runner_of(kind: str, policy: Policy) -> Counting:
    if kind == "graphed":  # on a CPU it computes what a GPU would record
        return Counting(GraphedRunner(policy.shape, "float32", policy.device, Replay(graphs=True)))
    if kind == "native":
        return Counting(NativeRunner(policy.shape, "float32"))
    if kind == "transformers":
        return Counting(runner_for(policy, "transformers"))
    return Counting(DenseRunner(policy.shape, policy.decoder.ops, policy.device))


def local(kind: str, policy: Policy, *, max_rows: int = 64) -> tuple[LocalEngine, Counting]:
    runner = runner_of(kind, policy)
    engine = LocalEngine(runner, policy.tokenizer, context=CONTEXT, max_rows=max_rows, device=policy.device)
    engine.load(policy.weights(), 0, policy.fingerprint())
    return engine, runner


def scripted(policy: Policy, answer: Callable[[str, int], str]) -> ScriptedEngine:
    engine = ScriptedEngine(policy.tokenizer, answer, context=CONTEXT)
    engine.load({}, 0, "scripted")
    return engine


def engine_of(kind: str, policy: Policy) -> Engine:
    """An engine whose answers are long and depend on the seed."""
    if kind == "scripted":
        return scripted(policy, lambda prompt, seed: f"{seed % 10}" * 60)
    if kind in ("vllm-server", "sglang"):
        engine, server = served(kind, policy, CONTEXT, Sampling(max_tokens=12))
        OPEN.extend([engine, server])
        return engine
    if kind == "vllm-inside":
        OPEN.append(inside(policy, CONTEXT, Sampling(max_tokens=12)))
        return OPEN[-1]
    if kind in ITSELF:
        plain = Sampling(max_tokens=12)
        made = _itself(kind, policy, plain)
        made.load(policy.weights(), 0, policy.fingerprint())
        OPEN.append(made)
        return made
    return local(kind, policy)[0]


def _itself(kind: str, policy: Policy, sampling: Sampling) -> ElsewhereEngine:
    if kind == "vllm-itself":
        return vllm_itself.inside_itself(policy, sampling)
    if kind == "sglang-itself":
        return behind("sglang", policy, sampling, sglang_itself.address())
    return behind("vllm", policy, sampling, vllm_itself.address())


OPEN: list[Engine | Served] = []
"""Engines and servers with threads, to be closed after each test."""


@pytest.fixture(autouse=True)
def closing(request: pytest.FixtureRequest) -> Iterator[None]:
    fake = standing_in_for_vllm() if "vllm-inside" in request.node.name else nullcontext()
    with fake:
        yield
        while OPEN:
            OPEN.pop(0).close()


def hold_in_mid_answer(engine: Engine, kind: str) -> Callable[[], Awaitable[None]]:
    """Return what waits until some tokens of an answer are there, with the model standing still."""
    server = next((one for one in OPEN if isinstance(one, Served)), None)

    fake = engine._place._engine if isinstance(engine, ElsewhereEngine) and kind == "vllm-inside" else None

    async def wait() -> None:
        if server is not None:
            assert await asyncio.to_thread(server.gate.reached.wait, 10)
        elif fake is not None:
            assert await asyncio.to_thread(fake.reached.wait, 10)
        elif kind == "sglang-itself":
            await sglang_itself.some_tokens(sglang_itself.address())
        elif isinstance(engine, ElsewhereEngine):
            await vllm_itself.some_tokens(engine, vllm_itself.address() if kind == "vllm-itself-served" else "")
        else:
            for _ in range(6):
                await asyncio.sleep(0)

    if server is not None:
        server.gate.hold_at = server.gate.steps + 5
    if fake is not None:
        fake.hold_at = fake.steps + 5
    return wait


@pytest.fixture(params=[*LOCAL, "scripted", *AWAY])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LOCAL)
def local_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- What every engine promises.


def test_a_seed_repeats_its_answer_whatever_else_shares_the_batch(kind: str) -> None:
    policy = model_for(kind)
    mine = [request_for(policy, "1+2=?", seed=s) for s in (5, 6)]
    others = [
        request_for(policy, text, seed=9, max_tokens=m) for text, m in (("1+2=?", 3), ("what", 20), ("a b c d e f", 7))
    ]
    alone = [ask(engine_of(kind, policy), [r])[0] for r in mine]
    together = ask(engine_of(kind, policy), [others[0], mine[1], others[1], mine[0], others[2]])
    for one, other in ((alone[0], together[3]), (alone[1], together[1])):
        assert one.output.tolist() == other.output.tolist()
        assert one.stop is other.stop
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    assert alone[0].output.tolist() != alone[1].output.tolist()


def test_the_limit_of_new_tokens_and_of_the_context_cut_an_answer(kind: str) -> None:
    policy = model_for(kind)
    engine = engine_of(kind, policy)
    long = policy.tokenizer.encode("a" * (CONTEXT - 3))
    sampling = Sampling(max_tokens=4, temperature=2.0)
    for done, length in zip(
        ask(engine, [request_for(policy, max_tokens=1), Request(long, sampling, 3)]), (1, 3), strict=True
    ):
        assert len(done.output) == len(done.logprobs) <= length
        assert done.stop is (StopReason.END if done.output[-1] in policy.tokenizer.end_tokens else StopReason.LENGTH)


def test_prompts_of_many_lengths_share_a_batch_when_each_may_fill_the_context(kind: str) -> None:
    policy = model_for(kind)
    texts = ["a", "ab" * 20, "abc" * 30]
    requests = [request_for(policy, text, max_tokens=10 * CONTEXT, temperature=hot(kind)) for text in texts]
    for request, done in zip(requests, ask(engine_of(kind, policy), requests), strict=True):
        assert 1 <= len(done.output) <= CONTEXT - len(request.prompt)


def test_a_load_in_mid_answer_shows_in_its_two_versions(kind: str) -> None:
    policy, engine = model_for(kind), engine_of(kind, model_for(kind))
    requests = [request_for(policy, max_tokens=80, temperature=hot(kind), seed=s) for s in range(12, 20)]
    request = next(r for r in requests if len(ask(engine, [r])[0].output) > 8)

    some_tokens = hold_in_mid_answer(engine, kind)

    async def load_between() -> Completion:
        waiting = asyncio.ensure_future(engine.generate(request))
        await some_tokens()
        engine.load(policy.weights(), 3, "third")
        return await waiting

    done = asyncio.run(load_between())
    assert (done.version, done.last_version, done.fingerprint) == (0, 3, "third")
    assert len(done.switches) == (kind != "scripted"), "each token knows its version"
    after = ask(engine, [request])[0]
    assert (after.version, after.last_version, engine.version) == (3, 3, 3)


def test_closing_fails_the_requests_in_flight(kind: str) -> None:
    policy, engine = model_for(kind), engine_of(kind, model_for(kind))

    async def close_between() -> list[Completion | BaseException]:
        waiting = [asyncio.ensure_future(engine.generate(request_for(policy, seed=s, max_tokens=60))) for s in range(3)]
        await asyncio.sleep(0)
        engine.close()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    results = asyncio.run(close_between())
    assert [type(r) for r in results] == [RunError] * 3


def test_cancelling_one_request_leaves_the_others_as_they_were(kind: str) -> None:
    policy, engine = model_for(kind), engine_of(kind, model_for(kind))
    wanted = request_for(policy, seed=12, max_tokens=30, temperature=hot(kind))
    alone = ask(engine, [wanted])[0]

    async def cancel_between() -> Completion:
        doomed = [asyncio.ensure_future(engine.generate(request_for(policy, seed=s, max_tokens=60))) for s in range(3)]
        kept = asyncio.ensure_future(engine.generate(wanted))
        for _ in range(3):
            await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        return await kept

    assert asyncio.run(cancel_between()).output.tolist() == alone.output.tolist()


def test_a_new_event_loop_finds_the_engine_as_it_was(kind: str) -> None:
    policy, engine = model_for(kind), engine_of(kind, model_for(kind))
    first, second = (ask(engine, [request_for(policy, seed=4)])[0] for _ in range(2))
    assert first.output.tolist() == second.output.tolist()


# --- What the scripted engine says.


def test_the_scripted_engine_says_what_its_function_says() -> None:
    policy = model()
    engine = scripted(policy, lambda prompt, seed: {"1+2=?": "<think>a</think>3", "stop": "ab cd ef"}[prompt])
    plain, cut, stopped, ended = ask(
        engine,
        [
            request_for(policy),
            request_for(policy, max_tokens=2),
            request_for(policy, "stop", stop=("b c",)),
            request_for(policy, "stop", stop_tokens=(int(policy.tokenizer.encode("c")[0]),)),
        ],
    )
    assert (policy.tokenizer.decode(plain.output), plain.stop) == ("<think>a</think>3", StopReason.END)
    assert plain.output[-1] == policy.tokenizer.end_tokens[0]
    assert (policy.tokenizer.decode(cut.output), cut.stop) == ("<think>a", StopReason.LENGTH)
    assert (policy.tokenizer.decode(stopped.output), stopped.stop) == ("ab c", StopReason.STOP)
    assert (policy.tokenizer.decode(ended.output), ended.stop) == ("ab c", StopReason.END)
    assert plain.logprobs.tolist() == [0.0] * len(plain.output)
    assert engine.in_flight == 0


# --- What engines with a model promise.


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_log_probabilities_are_those_of_a_full_forward_pass(local_kind: str, family: str, temperature: float) -> None:
    policy = model(family=family)
    texts = ["1", "1+2=?", "abc def", "1+2=?"]
    requests = [request_for(policy, t, seed=i, max_tokens=70, temperature=temperature) for i, t in enumerate(texts)]
    for request, done in zip(requests, ask(local(local_kind, policy)[0], requests), strict=True):
        logp = (logits_after(policy, request.prompt, done.output) / temperature).log_softmax(-1)
        expected = logp[torch.arange(len(done.output)), torch.from_numpy(done.output).long()]
        assert done.logprobs == pytest.approx(expected.numpy(), abs=1e-5)
        assert len(done.log_kept) == 0


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("family", "tied", "seed"), [("llama", False, 1), ("qwen2", True, 2), ("qwen3", False, 3)])
def test_greedy_answers_are_those_of_transformers(
    local_kind: str, family: str, tied: bool, seed: int, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    policy = model(seed, family=family, tied=tied)
    policy.save(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    requests = [
        request_for(policy, text, max_tokens=40, temperature=0.0) for text in ("1+2=?", "a", "the quick brown fox")
    ]
    for request, done in zip(requests, ask(local(local_kind, policy)[0], requests), strict=True):
        prompt = torch.from_numpy(request.prompt.astype(np.int64))[None]
        with torch.no_grad():
            whole = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40)
        assert done.output.tolist() == whole[0, prompt.shape[1] :].tolist()
        logp = logits_after(policy, request.prompt, done.output).log_softmax(-1)
        assert done.logprobs == pytest.approx(logp.max(-1).values.numpy(), abs=1e-5)  # at temperature 1


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1.0, 0.7, 0), (1.0, 1.0, 3), (1.5, 0.8, 9), (0.7, 1e-6, 0), (1.0, 1.0, 1)]
)
def test_a_cut_distribution_is_recorded_with_the_mass_it_kept(
    local_kind: str, temperature: float, top_p: float, top_k: int
) -> None:
    policy = model()
    cut = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    requests = [request_for(policy, seed=s, max_tokens=20, **cut) for s in range(12)]
    # A request that cuts nothing shares the batch.
    *results, free = ask(local(local_kind, policy)[0], [*requests, request_for(policy, seed=3)])
    for request, done in zip(requests, results, strict=True):
        for i, logits in enumerate(logits_after(policy, request.prompt, done.output).numpy()):
            kept, p = kept_by_hand(logits, temperature, top_p, top_k)
            token = int(done.output[i])
            assert token in kept
            assert done.logprobs[i] == pytest.approx(np.log(p[token] / p[kept].sum()), abs=1e-4)
            log_kept = done.log_kept[i] if len(done.log_kept) else 0.0
            assert log_kept == pytest.approx(np.log(p[kept].sum()), abs=1e-4)
    assert not free.log_kept.any()


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (2.5, 1.0, 0), (1.5, 0.8, 0), (1.5, 1.0, 5)]
)
def test_tokens_are_drawn_as_often_as_their_probabilities_say(
    local_kind: str, temperature: float, top_p: float, top_k: int
) -> None:
    policy, draws = model(), 4000
    cut = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    requests = [request_for(policy, seed=s * 7919 + 1, max_tokens=1, **cut) for s in range(draws)]
    results = ask(local(local_kind, policy, max_rows=draws)[0], requests)
    counts = np.bincount([int(d.output[0]) for d in results], minlength=policy.shape.vocab)
    kept, p = kept_by_hand(
        logits_after(policy, requests[0].prompt, results[0].output)[0].numpy(), temperature, top_p, top_k
    )
    expected = np.zeros(policy.shape.vocab)
    expected[kept] = draws * p[kept] / p[kept].sum()
    assert counts[expected == 0].sum() == 0
    often = expected >= 5
    rest = counts[~often].sum(), expected[~often].sum()
    chi = (((counts - expected) ** 2)[often] / expected[often]).sum() + (rest[0] - rest[1]) ** 2 / max(rest[1], 1.0)
    degrees = int(often.sum())
    assert chi < degrees + 5 * np.sqrt(2 * degrees) + 5, "five deviations from what chance does"


def test_an_answer_ends_at_an_end_token_a_stop_token_and_a_stop_string(local_kind: str) -> None:
    policy = model()
    engine, _ = local(local_kind, policy)
    free = ask(engine, [request_for(policy, seed=s, max_tokens=60, temperature=1.5) for s in range(30)])
    assert {StopReason.END, StopReason.LENGTH} >= {d.stop for d in free}
    ended = [d for d in free if d.stop is StopReason.END]
    assert ended, "the test needs an answer that ends"
    for done in ended:
        assert done.output[-1] in policy.tokenizer.end_tokens
        assert not set(done.output[:-1].tolist()) & set(policy.tokenizer.end_tokens)
    long = max(free, key=lambda d: len(d.output))
    seed, middle = free.index(long), int(long.output[5])
    first = long.output.tolist().index(middle) + 1
    text = policy.tokenizer.decode(long.output[3:6])
    by_token, by_string = ask(
        engine,
        [
            request_for(policy, seed=seed, max_tokens=60, temperature=1.5, stop_tokens=(middle,)),
            request_for(policy, seed=seed, max_tokens=60, temperature=1.5, stop=("never", text)),
        ],
    )
    assert (by_token.output.tolist(), by_token.stop) == (long.output[:first].tolist(), StopReason.END)
    assert by_string.stop is StopReason.STOP
    said = policy.tokenizer.decode(by_string.output)
    assert said.endswith(text)
    assert text not in policy.tokenizer.decode(by_string.output[:-1])


def test_a_stop_string_of_many_tokens_is_found(local_kind: str) -> None:
    policy = model()
    engine, _ = local(local_kind, policy)
    free = ask(engine, [request_for(policy, seed=s, max_tokens=90, temperature=3.0) for s in range(30)])
    long = max(free, key=lambda d: len(d.output))
    text = policy.tokenizer.decode(long.output[:65])
    assert len(text) > 50, "the test needs a long answer"
    again = ask(engine, [request_for(policy, seed=free.index(long), max_tokens=90, temperature=3.0, stop=(text,))])[0]
    assert again.stop is StopReason.STOP


def test_more_requests_than_places_take_turns_and_change_no_answer(local_kind: str) -> None:
    policy = model()
    requests = [request_for(policy, text, seed=s) for s in range(4) for text in ("1+2=?", "why", "a b")]
    engine, runner = local(local_kind, policy, max_rows=3)
    few = ask(engine, requests)
    many = ask(local(local_kind, policy)[0], requests)
    assert [d.output.tolist() for d in few] == [d.output.tolist() for d in many]
    assert runner.most == 3
    assert not runner.open


def test_a_prompt_asked_many_times_at_once_is_prefilled_once(local_kind: str) -> None:
    policy = model()
    engine, runner = local(local_kind, policy)
    ask(engine, [request_for(policy, text, seed=s) for s in range(5) for text in ("1+2=?", "why")])
    assert sorted(runner.prefilled) == [3, 5]


def test_a_cancelled_request_gives_its_place_to_the_next(local_kind: str) -> None:
    policy = model()
    engine, runner = local(local_kind, policy, max_rows=1)

    async def cancel_first() -> Completion:
        first = asyncio.ensure_future(engine.generate(request_for(policy, max_tokens=90, temperature=3.0, seed=12)))
        second = asyncio.ensure_future(engine.generate(request_for(policy, "why", max_tokens=2)))
        waiting = asyncio.ensure_future(engine.generate(request_for(policy, "not yet", max_tokens=2)))
        for _ in range(4):
            await asyncio.sleep(0)
        assert len(runner.open) == 1
        first.cancel()
        waiting.cancel()
        return await second

    assert len(asyncio.run(cancel_first()).output) <= 2
    assert not runner.open
    assert runner.prefilled == [5, 3], "the request cancelled while it waited was never begun"


def test_closing_frees_every_row(local_kind: str) -> None:
    policy = model()
    engine, runner = local(local_kind, policy)

    async def close_between() -> None:
        waiting = [asyncio.ensure_future(engine.generate(request_for(policy, seed=s, max_tokens=60))) for s in range(3)]
        for _ in range(4):
            await asyncio.sleep(0)
        assert runner.open
        engine.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(close_between())
    assert not runner.open


def test_loading_copies_the_weights(local_kind: str) -> None:
    policy = model()
    engine, _ = local(local_kind, policy)
    request = request_for(policy, temperature=0.0, max_tokens=20)
    before = ask(engine, [request])[0]
    with torch.no_grad():
        for weight in policy.weights().values():
            weight.mul_(-1.7)
    assert ask(engine, [request])[0].output.tolist() == before.output.tolist()
    engine.load(policy.weights(), 1, policy.fingerprint())
    assert ask(engine, [request])[0].logprobs.tolist() != before.logprobs.tolist()


@pytest.mark.parametrize("where", ["prefill", "step"])
def test_a_runner_that_breaks_fails_every_request_with_its_reason(local_kind: str, where: str) -> None:
    @dataclass
    class Breaking(Counting):
        def prefill(
            self, prompts: Sequence[Tokens], copies: Sequence[int], room: int
        ) -> tuple[list[list[int]], Tensor]:
            if where == "prefill":
                raise ValueError("out of memory, say")
            return super().prefill(prompts, copies, room)

        def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
            raise ValueError("out of memory, say")

    policy = model()
    runner = Breaking(runner_of(local_kind, policy).runner)
    engine = LocalEngine(runner, policy.tokenizer, context=CONTEXT, max_rows=1, device=policy.device)
    engine.load(policy.weights(), 0, "f")

    async def gather() -> list[Completion | BaseException]:
        asked = [engine.generate(request_for(policy, seed=s, max_tokens=50, temperature=3.0)) for s in (12, 13)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    with within(10):
        failed = asyncio.run(gather())
    assert len(failed) == 2
    assert all("out of memory, say" in str(r) for r in failed)


def test_the_same_request_with_another_limit_begins_the_same_way(local_kind: str) -> None:
    policy = model()
    long = request_for(policy, max_tokens=30, temperature=2.0, seed=12)
    short = replace(long, sampling=replace(long.sampling, max_tokens=5))
    a, b = (ask(local(local_kind, policy)[0], [r])[0] for r in (long, short))
    assert a.output[:5].tolist() == b.output.tolist()
