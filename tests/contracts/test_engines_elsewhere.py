"""What engines behind a server promise beyond the common contract, over fake servers that speak the documented APIs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_requests import CONTEXT, ask, kept_by_hand, logits_after, model, request_for
from engine_servers import FakeSglang, FakeVllm, Served, inside, reached, served, standing_in_for_vllm

from ratchet.config.read import config_from_tree
from ratchet.config.schema import EngineSection
from ratchet.core.errors import ConfigError, EngineError
from ratchet.core.protocols import Completion, Sampling
from ratchet.core.rollout import StopReason
from ratchet.engines.build import check_engine
from ratchet.engines.elsewhere import ElsewhereEngine, EngineGone, Label
from ratchet.engines.sglang_server import check_facts
from ratchet.engines.started import StartedServer
from ratchet.engines.vllm_inside import MOST_UNPACKED, TORN, held, read_back
from ratchet.engines.vllm_server import log_kept, logprobs_mode
from ratchet.policy.policy import Policy

Opener = Callable[..., tuple[ElsewhereEngine, Served]]
PLAIN = Sampling(max_tokens=12)


@pytest.fixture(params=["vllm-server", "sglang"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens an engine with its server; both are closed after the test."""
    made: list[ElsewhereEngine | Served] = []

    def start(kind: str, policy: Policy, sampling: Sampling = PLAIN) -> tuple[ElsewhereEngine, Served]:
        engine, server = served(kind, policy, CONTEXT, sampling)
        made.extend([engine, server])
        return engine, server

    yield start
    for one in made:
        one.close()


# --- What is sampled and recorded.


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_a_full_forward_pass(kind: str, temperature: float, opened: Opener) -> None:
    policy = model()
    engine, _ = opened(kind, policy)
    requests = [
        request_for(policy, t, seed=i, max_tokens=40, temperature=temperature) for i, t in enumerate(["1", "abc def"])
    ]
    for request, done in zip(requests, ask(engine, requests), strict=True):
        logp = (logits_after(policy, request.prompt, done.output) / temperature).log_softmax(-1)
        expected = logp[torch.arange(len(done.output)), torch.from_numpy(done.output).long()]
        assert done.logprobs == pytest.approx(expected.numpy(), abs=1e-5)
        assert not len(done.log_kept)


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 3), (0.7, 9)])
def test_a_cut_distribution_is_recorded_with_the_mass_it_kept(
    kind: str, top_p: float, top_k: int, opened: Opener
) -> None:
    policy = model()
    engine, _ = opened(kind, policy, Sampling(max_tokens=12, top_p=top_p, top_k=top_k))
    requests = [request_for(policy, seed=s, top_p=top_p, top_k=top_k) for s in range(3)]
    for request, done in zip(requests, ask(engine, requests), strict=True):
        for i, logits in enumerate(logits_after(policy, request.prompt, done.output).numpy()):
            kept, p = kept_by_hand(logits, 1.0, top_p, top_k)
            token = int(done.output[i])
            assert token in kept
            assert done.logprobs[i] == pytest.approx(np.log(p[token] / p[kept].sum()), abs=1e-4)
            assert done.log_kept[i] == pytest.approx(np.log(p[kept].sum()), abs=1e-4)


def test_an_answer_ends_at_an_end_token_a_stop_token_and_a_stop_string(kind: str, opened: Opener) -> None:
    policy = model()
    engine, _ = opened(kind, policy)
    free = ask(engine, [request_for(policy, seed=s, max_tokens=60, temperature=1.5) for s in range(12)])
    assert {d.stop for d in free} <= {StopReason.END, StopReason.LENGTH}
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


def test_the_mass_kept_follows_from_the_largest_log_probabilities() -> None:
    # Of 0.5, 0.2, 0.15 (and 0.15 more that is not shown) top-k = 3 keeps 0.85. Their shares are 0.588, 0.235, 0.176:
    # top-p = 0.8 is reached by the first two, which hold 0.7.
    top = [[np.log(0.2), np.log(0.5), np.log(0.15)]]
    assert log_kept(top, Sampling(1, top_k=3)) == pytest.approx([np.log(0.85)])
    assert log_kept(top, Sampling(1, top_k=3, top_p=0.8)) == pytest.approx([np.log(0.7)])


def test_prompts_share_what_was_computed_within_a_version_only(opened: Opener) -> None:
    policy = model()
    engine, server = opened("vllm-server", policy)
    ask(engine, [request_for(policy)])
    engine.load(policy.weights(), 1, policy.fingerprint())
    ask(engine, [request_for(policy)])
    salts = [body["cache_salt"] for path, body in server.asked if path == "/inference/v1/generate"]
    assert salts == [f"0:{policy.fingerprint()}", f"1:{policy.fingerprint()}"]


# --- Weights.


def test_new_weights_arrive_and_the_folder_with_the_old_ones_is_gone(kind: str, opened: Opener) -> None:
    policy, other = model(), model(seed=5)
    engine, server = opened(kind, policy)
    engine.load(other.weights(), 1, other.fingerprint())
    request = request_for(policy, max_tokens=20)
    done = ask(engine, [request])[0]
    logp = logits_after(other, request.prompt, done.output).log_softmax(-1)
    expected = logp[torch.arange(len(done.output)), torch.from_numpy(done.output).long()]
    assert done.logprobs == pytest.approx(expected.numpy(), abs=1e-5)
    assert (done.version, done.fingerprint) == (1, other.fingerprint())
    told = [
        b["args"][0] if "args" in b else b["model_path"]
        for _, b in server.asked
        if isinstance(b, dict) and (b.get("args") or "model_path" in b)
    ]
    assert [Path(folder).is_dir() for folder in told] == [False, True]
    assert (Path(told[1]) / "tokenizer.json").is_file()
    engine.close()
    assert not Path(told[1]).exists()


def test_weights_that_did_not_arrive_are_noticed_at_once(kind: str, opened: Opener) -> None:
    policy, other = model(), model(seed=5)
    engine, server = opened(kind, policy)
    server.forgets = True  # as vLLM on a CPU keeps a tied head, without a word
    with pytest.raises(EngineError, match=r"holds (the )?weights"):
        engine.load(other.weights(), 1, other.fingerprint())


def test_an_sglang_that_makes_something_else_of_the_same_weights_is_noticed(opened: Opener) -> None:
    policy, other = model(), model(seed=5)
    engine, server = opened("sglang", policy)
    engine.load(policy.weights(), 1, policy.fingerprint())  # the same under another version: nothing to say
    with torch.no_grad():
        server.gate.runner._decoder.final_norm.mul_(2.0)
    server.forgets = True
    with pytest.raises(EngineError, match="other weights than when it got the same before"):
        engine.load(policy.weights(), 2, policy.fingerprint())
    server.forgets = False
    engine.load(other.weights(), 3, other.fingerprint())


def test_a_server_that_somebody_else_updates_is_noticed(kind: str, opened: Opener) -> None:
    policy = model()
    engine, server = opened(kind, policy)
    server.labels[server.engine.version] = server.label = "theirs"
    with pytest.raises(EngineError, match="somebody else"):
        ask(engine, [request_for(policy)])


def test_what_vllm_holds_is_read_back_by_our_names_or_not_at_all() -> None:
    policy = model(tied=True)
    layers = range(policy.shape.layers)
    names = {"embedding": "model.embed_tokens.weight", "final_norm": "model.norm.weight"}
    kinds = {
        "attn_norm": "input_layernorm", "qkv": "self_attn.qkv_proj", "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm", "out": "self_attn.o_proj", "mlp_norm": "post_attention_layernorm",
        "gate_up": "mlp.gate_up_proj", "down": "mlp.down_proj",
    }  # fmt: skip
    names |= {
        f"layers.{i}.{ours}": f"model.layers.{i}.{theirs}.weight" for i in layers for ours, theirs in kinds.items()
    }
    weights = policy.weights()
    held = {names[ours]: weight for ours, weight in weights.items()}
    padded = torch.cat([weights["embedding"], torch.zeros(3, policy.shape.hidden)])  # vLLM rounds the vocabulary up
    held["model.embed_tokens.weight"] = held["lm_head.weight"] = padded
    assert read_back(held.items(), policy.shape.vocab, tied=True) == policy.fingerprint()
    packed = {**held, "model.layers.0.mlp.down_proj.weight": torch.zeros(0)}
    assert read_back(packed.items(), policy.shape.vocab, tied=True) == ""


class Packed(torch.nn.Module):
    """A matrix as vLLM holds it on CPUs: emptied, and known to what multiplies by it alone."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.output_size_per_partition, self.input_size_per_partition = weight.shape
        self.weight = torch.nn.Parameter(torch.empty(0))
        self.cpu_linear = lambda x, _, bias: x @ weight.T


def test_what_a_cpu_holds_packed_is_read_back_unless_that_takes_long() -> None:
    weight = torch.randn(7, 5)
    whole = torch.nn.Module()
    whole.proj, whole.norm = Packed(weight), torch.nn.LayerNorm(5, bias=False)
    found = dict(held(whole))
    assert list(found) == ["proj.weight", "norm.weight"]
    assert torch.equal(found["proj.weight"], weight)
    whole.proj.output_size_per_partition = int(MOST_UNPACKED)
    assert not dict(held(whole))["proj.weight"].numel()


def test_a_tied_head_unlike_its_embedding_is_no_policy() -> None:
    embedding = torch.randn(4, 3)
    weights = [("model.embed_tokens.weight", embedding), ("lm_head.weight", embedding.clone())]
    assert read_back(weights, 4, tied=True) not in ("", TORN)
    weights[1][1][2, 1] += 1
    assert read_back(weights, 4, tied=True) == TORN


# --- Cancelling, dying, coming back.


def test_a_cancelled_request_frees_its_slot_at_the_server(kind: str, opened: Opener) -> None:
    policy = model()
    engine, server = opened(kind, policy)
    server.gate.hold_at = server.gate.steps + 3

    async def cancel() -> None:
        waiting = asyncio.ensure_future(engine.generate(request_for(policy, max_tokens=80, temperature=3.0, seed=12)))
        assert await asyncio.to_thread(server.gate.reached.wait, 10)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(cancel())
    server.gate.free.set()
    assert server.is_idle()
    assert len(server.aborted) == 1


def test_an_engine_that_dies_once_is_brought_back_and_gives_the_same_answers(kind: str, opened: Opener) -> None:
    policy = model()
    engine, server = opened(kind, policy)
    requests = [request_for(policy, seed=s) for s in range(3)]
    before = ask(engine, requests)
    server.dies = 1
    after = ask(engine, requests)
    assert [d.output.tolist() for d in before] == [d.output.tolist() for d in after]
    assert engine.restarts == 1
    loads = [path for path, _ in server.asked if path in ("/update_weight_version", "/update_weights_from_disk")]
    assert len(loads) == 2, "its weights were loaded again"


def test_an_engine_that_dies_twice_under_the_same_weights_stops_the_run_with_a_sentence(
    kind: str, opened: Opener
) -> None:
    policy = model()
    engine, server = opened(kind, policy)
    server.dies = 2
    with pytest.raises(EngineError, match=r"died again .* ratchet resume"):
        ask(engine, [request_for(policy)])
    server.dies = 0
    engine.load(policy.weights(), 1, policy.fingerprint())
    server.dies = 1
    assert ask(engine, [request_for(policy)])[0].version == 1, "new weights, a new try"


def test_weights_that_changed_since_they_were_handed_over_are_not_loaded_again(opened: Opener) -> None:
    policy = model()
    engine, server = opened("sglang", policy)
    with torch.no_grad():
        policy.decoder.final_norm.mul_(2.0)
    server.dies = 1
    with pytest.raises(EngineError, match="they have changed"):
        ask(engine, [request_for(policy)])


def test_requests_beyond_the_rows_of_the_engine_wait_their_turn(kind: str) -> None:
    policy = model()
    server: Served = FakeSglang(policy, CONTEXT) if kind == "sglang" else FakeVllm(policy, CONTEXT)
    engine = reached(kind, server.url, policy, CONTEXT, PLAIN, max_rows=2)
    engine.load(policy.weights(), 0, policy.fingerprint())
    most = 0

    def count(path: str, body: object) -> None:
        nonlocal most
        most = max(most, len(server.in_flight))

    server.watch = count
    done = ask(engine, [request_for(policy, seed=s) for s in range(7)])
    engine.close()
    server.close()
    assert len(done) == 7
    assert most <= 2


# --- vLLM in this process, over a stand-in that is called as the library is.


@pytest.fixture
def vllm() -> Iterator[None]:
    with standing_in_for_vllm():
        yield


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.7, 9)])
def test_vllm_in_this_process_records_the_distribution_it_drew_from(vllm: None, top_p: float, top_k: int) -> None:
    policy, cut = model(), {"top_p": top_p, "top_k": top_k}
    engine = inside(policy, CONTEXT, Sampling(max_tokens=12, **cut))
    requests = [request_for(policy, seed=s, **cut) for s in range(3)]
    done = ask(engine, requests)
    engine.close()
    for request, one in zip(requests, done, strict=True):
        for i, logits in enumerate(logits_after(policy, request.prompt, one.output).numpy()):
            kept, p = kept_by_hand(logits, 1.0, top_p, top_k)
            assert one.logprobs[i] == pytest.approx(np.log(p[int(one.output[i])] / p[kept].sum()), abs=1e-4)
            assert (one.log_kept[i] if top_k else 0.0) == pytest.approx(np.log(p[kept].sum()), abs=1e-4)


def test_vllm_in_this_process_is_made_anew_once_when_a_step_fails(vllm: None) -> None:
    policy = model()
    engine = inside(policy, CONTEXT, PLAIN)
    requests = [request_for(policy, seed=s) for s in range(3)]
    before = ask(engine, requests)
    engine._place._engine.fails = 1
    after = ask(engine, requests)
    assert [d.output.tolist() for d in before] == [d.output.tolist() for d in after]
    assert engine.restarts == 1
    engine._place._engine.fails = 1
    with pytest.raises(EngineError, match="CUDA error, say"):
        ask(engine, requests)
    engine.close()


def test_vllm_in_this_process_gets_the_arguments_of_the_recipe(vllm: None) -> None:
    policy = model()
    engine = inside(policy, CONTEXT, PLAIN, max_rows=7, memory=0.3, options={"enforce_eager": True})
    args = engine._place._engine.args
    assert (args.max_num_seqs, args.gpu_memory_utilization, args.enforce_eager) == (7, 0.3, True)
    assert (args.max_model_len, args.dtype, args.logprobs_mode) == (CONTEXT, "float32", "processed_logprobs")
    engine.close()


# --- What is refused before anything is computed.


def test_a_server_that_is_not_there_is_a_sentence(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.url = .*does not answer.*engine\.command"):
        reached(kind, "http://127.0.0.1:9", model(), CONTEXT, PLAIN)


def test_a_vllm_that_reports_another_distribution_is_refused() -> None:
    policy = model()
    server = FakeVllm(policy, CONTEXT)
    server.mode = "raw_logprobs"
    with pytest.raises(ConfigError, match=r"--logprobs-mode processed_logprobs"):
        reached("vllm-server", server.url, policy, CONTEXT, Sampling(max_tokens=4, temperature=0.6))
    server.max_logprobs = 20
    with pytest.raises(ConfigError, match=r"--max-logprobs 50"):
        reached("vllm-server", server.url, policy, CONTEXT, Sampling(max_tokens=4, top_k=50))
    server.close()


def test_a_vllm_that_takes_no_weights_no_tokens_or_not_this_model_is_refused() -> None:
    policy = model()
    server = FakeVllm(policy, CONTEXT)
    server.extended = False
    with pytest.raises(ConfigError, match=r"cannot take weights .* --worker-extension-cls ratchet\.engines"):
        reached("vllm-server", server.url, policy, CONTEXT, PLAIN)
    server.extended = True
    server.scaled_out = False
    with pytest.raises(ConfigError, match=r"takes no tokens .* --enable-scale-out"):
        reached("vllm-server", server.url, policy, CONTEXT, PLAIN)
    server.unfit = "its heads have 16 channels"
    with pytest.raises(ConfigError, match=r"would fail in the middle of a run: its heads have 16 channels"):
        reached("vllm-server", server.url, policy, CONTEXT, PLAIN)
    server.close()


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_a_temperature_that_vllm_does_not_sample_at_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"vLLM samples at 0\.01 to 2"):
        logprobs_mode(Sampling(8, temperature))
    assert logprobs_mode(Sampling(8, 0.0)) == "processed_logprobs"


def test_an_sglang_that_ignores_seeds_is_refused() -> None:
    policy = model()
    server = FakeSglang(policy, CONTEXT)
    server.deterministic = False
    with pytest.raises(ConfigError, match="--enable-deterministic-inference"):
        reached("sglang", server.url, policy, CONTEXT, PLAIN)
    server.close()


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(0.6, 0.95, 20), (1.0, 0.9, 0), (1.0, 1.0, 5000)])
def test_a_cut_whose_mass_vllm_does_not_tell_is_refused(temperature: float, top_p: float, top_k: int) -> None:
    with pytest.raises(ConfigError, match="does not tell how much mass"):
        logprobs_mode(Sampling(8, temperature, top_p, top_k))


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        (Sampling(8, 1.0, 0.9), r"may leave 151936 tokens.*top_k to 2 \.\. 4096.*--sampling-mask-max-tokens 151936"),
        (Sampling(8, 0.6, 1.0, 5000), "may leave 5000 tokens"),
        (Sampling(8, 0.6, 1.0, 1), "without the temperature"),
    ],
)
def test_a_cut_whose_mass_sglang_does_not_tell_is_refused(sampling: Sampling, sentence: str) -> None:
    def check(sampling: Sampling, most: int = 4096) -> None:
        check_facts({**SGLANG, "sampling_mask_max_tokens": most}, sampling, context=99, vocab=151_936, dtype="bfloat16")

    with pytest.raises(ConfigError, match=sentence):
        check(sampling)
    for fine in (Sampling(8, 0.6), Sampling(8, 0.6, 0.9, 20), Sampling(8, 0.0, 0.9), Sampling(8, 1.0, 1.0, 1)):
        check(fine)
    check(Sampling(8, 1.0, 0.9), most=200_000)


SGLANG = {
    "enable_deterministic_inference": True, "sampling_mask_max_tokens": 4096, "max_req_input_len": 98, "dtype": "auto",
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "dtype", "fits"),
    [
        ("auto", "bfloat16", True), ("bfloat16", "bfloat16", True), ("float", "float32", True),
        ("auto", "float32", False), ("half", "bfloat16", False), ("bfloat16", "float32", False),
    ],
)  # fmt: skip
def test_an_sglang_of_another_precision_is_refused(found: str, dtype: str, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(ConfigError, match=f"start it with --dtype {dtype}"):
        check_facts({**SGLANG, "dtype": found}, PLAIN, context=99, vocab=50, dtype=dtype)


def test_a_server_with_less_room_than_the_run_is_refused(kind: str) -> None:
    policy = model()
    server: Served = FakeSglang(policy, CONTEXT) if kind == "sglang" else FakeVllm(policy, CONTEXT)
    server.longest = CONTEXT - 1
    room = CONTEXT + 5 if kind == "sglang" else CONTEXT  # SGLang keeps five positions back
    with pytest.raises(ConfigError, match=rf"have {CONTEXT} tokens.* {room} or more.*policy.context = {CONTEXT - 1}"):
        reached(kind, server.url, policy, CONTEXT, PLAIN)
    server.close()


def test_sglang_takes_a_cut_by_top_p_alone_as_a_top_k_of_the_whole_vocabulary(opened: Opener) -> None:
    policy = model()
    engine, server = opened("sglang", policy, Sampling(max_tokens=12, top_p=0.7))
    done = ask(engine, [request_for(policy, top_p=0.7), request_for(policy, seed=2)])
    assert [len(d.log_kept) > 0 for d in done] == [True, False]
    asked = [b["sampling_params"]["top_k"] for path, b in server.asked if path == "/generate"]
    assert sorted(asked) == [-1, policy.shape.vocab]


def test_a_label_of_weights_is_read_as_it_was_written() -> None:
    assert Label.read(str(Label(12, "abc"))) == Label(12, "abc")


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"name": "sglang"}, "set engine.url"),
        ({"name": "vllm", "command": "vllm serve"}, "set engine.url too"),
        ({"url": "http://127.0.0.1:1"}, 'no meaning for engine.name = "ratchet"'),
        ({"name": "vllm", "url": "http://127.0.0.1:1", "options": {"x": 1}}, "leave one of them out"),
    ],
)
def test_settings_of_engines_that_exclude_each_other_are_refused(engine: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config_from_tree({"environment": {"name": "arithmetic"}, "engine": engine})


def test_a_program_that_is_not_installed_is_said_before_the_run_begins() -> None:
    section = EngineSection(name="vllm", url="http://127.0.0.1:1", command="no-such-program serve {model}")
    with pytest.raises(ConfigError, match='no program "no-such-program"'):
        check_engine(section, PLAIN)


# --- A server that the run starts itself.


def test_a_server_of_our_own_is_started_and_ended_with_its_children(tmp_path: Path) -> None:
    said = tmp_path / "log"
    # `-S`: without site-packages it is up at once.
    server = StartedServer(f"{sys.executable} -S -c 'print(1); input(); print(2)' {{model}}", tmp_path, said)
    server.start()
    assert server.process is not None
    server.process.wait(30)
    with pytest.raises(EngineGone, match="ended with exit code 1"):  # its input is empty
        server.check()
    assert "EOFError" in said.read_text()
    server.end()
    assert server.process is None


def test_completions_keep_the_form_of_the_native_engine(kind: str, opened: Opener) -> None:
    policy = model()
    engine, _ = opened(kind, policy)
    done: Completion = ask(engine, [request_for(policy)])[0]
    assert (done.output.dtype, done.logprobs.dtype, done.log_kept.dtype) == (np.int32, np.float32, np.float32)
    assert done.switches == ()
