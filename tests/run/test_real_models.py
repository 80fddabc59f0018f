"""Runs on models from elsewhere: of another form, with an adapter, by another engine; and what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import tiny_policy
from foreign import save_theirs
from runs import Notes, rows

from ratchet.cli.explain import explanation
from ratchet.cli.export import export_model
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.policy.policy import Policy
from ratchet.run.changes import accept, changes
from ratchet.run.launch import resume, train
from ratchet.run.model import rehearse
from ratchet.run.observer import Silent
from ratchet.run.ranks import Ranks
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
pytestmark = pytest.mark.filterwarnings("default")
SHORT = ("train.steps=3", "record.checkpoint_every=1", "algorithm.kl_coef=0.1")


class Dies(Silent):
    """Ends the process, as far as a test can, right after a step is on disk."""

    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == 1:
            raise MemoryError("killed")


def model(family: str, folder: Path) -> str:
    """Write a random model that speaks what the test environment does; return the setting that names it."""
    save_theirs(family, folder, tokenizer=tiny_policy(characters="abcdefghi0123456789").tokenizer)
    return f"policy.model={folder}"


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in RunStore.open(folder).events() if e["kind"] == kind]


def files(folder: Path, step: int = 3) -> dict[str, bytes]:
    """Return what a checkpoint holds of weights and moments."""
    return {p.name: p.read_bytes() for p in (folder / "checkpoints" / f"step_{step:06d}").glob("*.safetensors")}


def killed_and_resumed(config: Config, folder: Path, *settings: str) -> Path:
    with pytest.raises(MemoryError):
        train(config(*settings, folder=folder), Dies())
    return resume(folder / "run").folder


def test_a_model_of_another_form_trains_says_who_computes_it_and_resumes_exactly(
    config: Config, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    settings = (*SHORT, model("gpt2", tmp_path / "model"))
    notes = Notes()
    straight = train(config(*settings, folder=tmp_path / "a"), notes).folder
    (told,) = events(straight, "model")
    assert (told["decoder"], told["family"], told["engine"]) == ("transformers", "gpt2", "transformers, with its cache")
    assert 'model_type "gpt2" is not one this decoder computes' in told["why"]
    assert any("computed by transformers" in note for note in notes.notes)
    assert rows(straight)[0]["gate/logp_diff_max"] < 1e-4
    assert rows(straight)[-1]["kl/ref"] > 0
    again = killed_and_resumed(config, tmp_path / "b", *settings)
    assert rows(again) == rows(straight)
    assert files(again) == files(straight)


def test_an_adapter_trains_is_all_a_checkpoint_holds_resumes_exactly_and_is_merged_on_export(
    config: Config, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    name = model("qwen2", tmp_path / "model")
    settings = (*SHORT, name, "policy.lora.rank=2", "sync.interval=3", "algorithm.lr=0.05")
    straight = train(config(*settings, folder=tmp_path / "a")).folder
    (told,) = events(straight, "model")
    assert told["decoder"] == "transformers"
    assert told["engine"] in ("NativeRunner", "DenseRunner")
    assert 0 < told["trained"] < Policy.load(tmp_path / "model").shape.num_parameters
    assert rows(straight)[0]["gate/logp_diff_max"] < 1e-4
    assert files(straight).keys() == {"adapter_model.safetensors", "optimiser.safetensors"}
    assert "sampler_000000.safetensors" in files(straight, 2)
    assert files(straight)["adapter_model.safetensors"] != files(straight, 0)["adapter_model.safetensors"]
    again = killed_and_resumed(config, tmp_path / "b", *settings)
    assert rows(again) == rows(straight)
    assert files(again) == files(straight)
    assert "adapter merged" in export_model(straight, tmp_path / "out", None)
    merged, base = Policy.load(tmp_path / "out"), Policy.load(tmp_path / "model")
    assert merged.origin.base is None
    assert merged.fingerprint() != base.fingerprint()


@pytest.mark.slow
def test_the_engine_of_transformers_passes_the_gate(config: Config) -> None:
    pytest.importorskip("transformers")
    folder = train(config("engine.name=transformers", "train.steps=1")).folder
    assert rows(folder)[0]["gate/logp_diff_max"] < 1e-4
    (told,) = events(folder, "model")
    assert (told["decoder"], told["engine"]) == ("own", "transformers, with its cache")


@pytest.mark.parametrize("extra", [("train.gradient_checkpointing=true",), pytest.param((), marks=pytest.mark.slow)])
def test_trying_the_worst_case_first_changes_nothing(config: Config, tmp_path: Path, extra: tuple[str, ...]) -> None:
    plain = train(config("train.steps=2", "train.worst_case_first=never", folder=tmp_path / "a")).folder
    tried = train(config("train.steps=2", "train.worst_case_first=always", *extra, folder=tmp_path / "b")).folder
    assert rows(plain) == rows(tried)
    assert files(plain, 2) == files(tried, 2)
    assert not events(plain, "worst_case")
    (told,) = events(tried, "worst_case")
    assert (told["rows"], told["tokens"]) == (12, 4096)


@dataclass
class Parts:
    """As much of a run's parts as the trial looks at; its trainer runs out of memory."""

    config: RunConfig
    error: RuntimeError
    plan: Any = field(default_factory=lambda: SimpleNamespace(prompt_tokens=4, context_tokens=24, samples_per_step=12))
    policy: Any = field(default_factory=lambda: SimpleNamespace(device=torch.device("cpu")))
    state: Any = field(default_factory=lambda: SimpleNamespace(step=0))
    ranks: Ranks = field(default_factory=Ranks)
    engine: None = None

    @property
    def trainer(self) -> Parts:
        return self

    def rehearse(self, prompt: int, answer: int) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_a_sentence_with_what_is_left_to_do(config: Config, error: RuntimeError) -> None:
    chosen = config("train.worst_case_first=always", "train.gradient_checkpointing=true")
    with pytest.raises(ConfigError) as caught:
        rehearse(Parts(chosen, error))  # type: ignore[arg-type]
    told = str(caught.value)
    assert "training on a pass of 4,096 tokens ran out of it before the first step" in told
    assert "lower train.micro_batch_tokens" in told
    assert "gradient_checkpointing = true" not in told, "it is set already"
    assert "policy.lora" not in told, "a tiny model has none"


def test_another_error_in_the_trial_is_not_called_memory(config: Config) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        rehearse(Parts(config("train.worst_case_first=always"), RuntimeError("shapes differ")))  # type: ignore[arg-type]


def test_explain_says_who_computes_a_model_and_what_is_trained(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    other = explanation(config(model("gpt2", tmp_path / "gpt2")))
    assert "computed by transformers" in other
    assert 'model_type "gpt2" is not one this decoder computes' in other
    own = model("qwen2", tmp_path / "qwen2")
    assert "computed by our own decoder" in explanation(config(own))
    adapted = explanation(config(own, "policy.lora.rank=2"))
    assert "Adapter: rank 2," in adapted
    assert "activations at least" in adapted


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("policy.lora.rank=2",), "policy.model is empty"),
        (("policy.lora.targets=['q_proj']",), "say nothing at policy.lora.rank = 0"),
        (("policy.model=x", "policy.lora.rank=2", "policy.decoder=own"), 'policy.decoder = "own" forbids'),
    ],
)
def test_settings_of_adapters_that_exclude_each_other_are_refused(
    config: Config, settings: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        config(*settings)


def test_a_critic_beside_an_adapter_is_refused(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=r"policy\.lora trains an adapter only"):
        train(config(model("qwen2", tmp_path / "model"), "policy.lora.rank=2", "algorithm.name=ppo"))


def test_moments_in_eight_bits_without_the_library_or_a_gpu_are_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"adamw_8bit.* needs (the library bitsandbytes|a GPU)"):
        train(config("train.optimiser=adamw_8bit"))


def test_a_run_does_not_go_on_with_another_adapter() -> None:
    before, after = ({"policy": {"lora": {"rank": rank}}} for rank in (2, 4))
    with pytest.raises(ConfigError, match=r"cannot go on with another policy\.lora\.rank \(2 -> 4\)"):
        accept(changes(before, after), accepted=True, resume="")
    accept(changes({}, after), accepted=True, resume="")  # a run from before there was such a setting
