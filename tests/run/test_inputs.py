"""What a run refuses before it computes anything, and a whole run from warm start to report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from builders import tiny_policy

from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError, ModelError, RatchetError
from ratchet.policy.policy import Policy
from ratchet.run.launch import resume, train
from ratchet.run.parts import make_environment
from ratchet.run.policies import fresh_policy
from ratchet.run.warm_start import warm_start_key
from ratchet.store.run_store import RunStore


def test_an_empty_data_set_is_refused(config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"letters" has no tasks in its "train" split'):
        train(config("environment.size=0"))
    assert not (tmp_path / "run").exists()


def test_prompts_that_are_all_too_long_are_refused(config, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="Even the shortest of the first 32 prompts has 42 tokens, but the context holds 24"
    ):
        train(config("environment.prompt=40"))
    assert not (tmp_path / "run").exists()


def test_groups_too_small_for_the_baseline_are_refused(config) -> None:
    with pytest.raises(ConfigError, match=r"explore\.samples_per_prompt = 1\. Raise it to 2"):
        train(config("explore.samples_per_prompt=1"))


@pytest.mark.parametrize(
    "word",
    [
        "environment.sise=3",
        "environment.name=jugde",
        "algorithm.clip_lo=0.1",
        "algorithm.name=gpro",
    ],
)
def test_a_misspelt_option_or_name_leaves_no_run_behind(config, tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        train(config(word))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_written_is_refused(config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.folder = .*cannot be written"):
        train(config(folder=tmp_path / "file" / "runs"))


def test_an_existing_run_is_not_overwritten(config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match=r"There is a run at .*/run already.*ratchet resume"):
        train(config())


def test_runs_without_a_name_are_numbered(config, tmp_path: Path) -> None:
    folders = [train(config("run.name=", "run.study=judge", "train.steps=1")).folder.name for _ in range(2)]
    assert folders == ["judge-001", "judge-002"]


def test_a_model_without_an_end_token_is_refused(config, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_policy().save(folder)
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        content.pop("eos_token_id", None)
        content.pop("eos_token", None)
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="names no end token"):
        train(config(f"policy.model={folder}"))


def test_a_demonstration_with_an_unknown_character_is_refused_by_name(config) -> None:
    with pytest.raises(ConfigError, match=r"cannot read a demonstration: the character 'ß'.*policy\.tiny\.characters"):
        train(config("environment.shown=ß", "warm_start.steps=1"))


def test_a_warm_start_is_computed_once_and_found_again(config, tmp_path: Path) -> None:
    words = ("warm_start.steps=30", "warm_start.lr=1e-2", "train.steps=1")
    cold = train(config("train.steps=1", folder=tmp_path / "cold")).folder
    first = train(config(*words, folder=tmp_path / "first")).folder
    (kept,) = (tmp_path / "cache").iterdir()
    stamp = (kept / "model.safetensors").stat().st_mtime_ns
    second = train(config(*words, folder=tmp_path / "second")).folder
    assert (kept / "model.safetensors").stat().st_mtime_ns == stamp
    models = [(f / "checkpoints" / "step_000001" / "model.safetensors").read_bytes() for f in (first, second)]
    assert models[0] == models[1]
    # Demonstrations are vowels only: the warm start must show in the first rewards.
    rewards = [RunStore.open(f).metrics()[0]["reward/mean"] for f in (cold, first)]
    assert rewards[1] > rewards[0] + 0.3


def test_training_raises_the_reward(config) -> None:
    chosen = config(
        "train.steps=25", "explore.prompts_per_step=8", "explore.samples_per_prompt=8", "record.checkpoint_every=25"
    )
    rewards = [row["reward/mean"] for row in RunStore.open(train(chosen).folder).metrics()]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


def test_a_tiny_judge_is_warm_started_trained_evaluated_and_reported(config) -> None:
    chosen = config(
        "environment.name=judge", "environment.source_options={terms_min=1, terms_max=2}", "policy.tiny.context=64",
        "explore.max_tokens=30", "warm_start.steps=20", "train.steps=2", "eval.tasks=4", "run.study=judge",
    )  # fmt: skip
    folder = train(chosen).folder
    store = RunStore.open(folder)
    assert [row["step"] for row in store.metrics()] == [0, 1]
    assert store.metrics()[0]["gate/logp_diff_max"] < 1e-4
    assert [e["kind"] for e in store.events()] == [
        "start", "reward_probe", "checkpoint", "model", "gate", "eval", "checkpoint", "finished",
    ]  # fmt: skip
    assert store.status()["state"] == "finished"
    assert (folder / "report.md").is_file()
    assert list((folder / "figures").iterdir())
    last = Policy.load(folder / "checkpoints" / "step_000002")
    assert last.fingerprint() != Policy.load(folder / "checkpoints" / "step_000000").fingerprint()


def test_a_config_survives_its_run_folder(config) -> None:
    chosen = config("sync.interval={kind='steps', values={0=1, 4=2}}", "train.steps=1")
    assert config_from_tree(RunStore.open(train(chosen).folder).config_tree()) == chosen


def test_a_demonstration_longer_than_the_model_can_hold_is_refused(config) -> None:
    with pytest.raises(ConfigError, match=r"Demonstration 0 has \d+ tokens.*holds 8. Raise policy.tiny.context"):
        train(config("warm_start.steps=1", "policy.tiny.context=8", "explore.max_tokens=2", "environment.prompt=3"))


def test_a_warm_start_on_other_demonstrations_is_another_one_though_the_settings_are_the_same(
    config, tmp_path: Path
) -> None:
    told, path = tmp_path / "told.txt", tmp_path / "mine.py"
    source = (Path(__file__).parent / "letters.py").read_text()
    path.write_text(
        f"{source}\n\nclass Told(Letters):\n    def demonstration(self, task, rng):\n"
        f"        return Path({str(told)!r}).read_text()\n"
    )
    asked = config(f"environment={{name='{path}:Told'}}", "warm_start.steps=1")
    keys = []
    for text in ("aei", "aie"):
        told.write_text(text)
        keys.append(warm_start_key(asked, fresh_policy(asked, make_environment(asked))))
    assert keys[0] != keys[1]


NOT_TO_GO_ON_WITH = [
    (("environment.size=0",), "has no tasks"),
    (("environment.shwon=ab",), "shwon"),
    (("environment.name=nothere",), '"nothere" is unknown'),
    (("algorithm.name=grop",), 'Did you mean "grpo"'),
    (("policy.model=/nonexistent",), "A run cannot go on with another policy.model"),
    (("engine.name=sglang", "engine.url=http://127.0.0.1:9"), "does not answer"),
    (("cluster.name=ray", "cluster.address=127.0.0.1:9"), "nothing answers there"),
    (("train.micro_batch_tokens=-1",), "train.micro_batch_tokens"),
]


def test_settings_that_a_run_cannot_go_on_with_leave_it_as_it_was(config) -> None:
    folder = train(config("train.steps=1")).folder
    kept = [folder / "config.toml", folder / "metrics.jsonl", *(folder / "checkpoints").rglob("*")]
    before = {path: path.read_bytes() for path in kept if path.is_file()}
    assert len(before) > 5
    for words, said in NOT_TO_GO_ON_WITH:
        with pytest.raises(RatchetError, match=re.escape(said)):
            resume(folder, words=("train.steps=2", *words), accept_changes=True)
        assert {path: path.read_bytes() for path in before} == before, words
    assert resume(folder, words=("train.steps=2",), accept_changes=True).finished
