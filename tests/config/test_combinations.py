"""Settings that exclude each other are refused when a config is read: both fields are named, and the way out."""

from __future__ import annotations

import pytest

from ratchet.config.read import read_config
from ratchet.core.errors import ConfigError

REFUSED = [
    (("train.updates_per_batch=99",), "train.updates_per_batch = 99", "explore.prompts_per_step", "lower the first"),
    (("explore.temperature=0",), "explore.temperature = 0", "group", "set it above 0"),
    (("algorithm.kl_coef=0.1", "train.reference_kl=false"), "algorithm.kl_coef", "train.reference_kl", "set train"),
    (("algorithm.kl_coef=0.1", "algorithm.kl=k1"), 'kl = "k1"', "kl_coef", 'set kl = "exact"'),
    (("algorithm.correction_low=0.5",), "correction_low", "correction_mode", "set correction_mode"),
    (("train.overlap=true",), "train.overlap", "sync.offset", "set sync.offset = 1"),
    (("sync.partial_rollouts=true", "sync.offset=1"), "sync.partial_rollouts", "train.overlap", "set train.overlap"),
    (
        ("sync.partial_rollouts=true", "sync.offset=1", "train.overlap=true", "sync.offline=true"),
        "sync.partial_rollouts", "sync.offline", "set one of them",
    ),
    (("buffer.train_prompts=99",), "buffer.train_prompts", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.cooldown=2",), "buffer.cooldown", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.max_uses=2",), "buffer.max_uses", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.capacity=2",), "buffer.capacity", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.priority=advantage",), "buffer.priority", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.reuse_penalty=0.5",), "buffer.reuse_penalty", "buffer.kind", 'set buffer.kind = "replay"'),
    (("buffer.max_staleness=3", "sync.interval=20"), "buffer.max_staleness = 3", "sync.interval", "raise the bound"),
    (("buffer.max_staleness=3", "sync.offline=true"), "buffer.max_staleness = 3", "sync.offline", "raise the bound"),
    (("buffer.max_staleness=3", "data.from_run=x"), "buffer.max_staleness", "data.from_run", "leave one of them out"),
    (
        ("policy.attention=flex", "policy.decoder=transformers", "policy.model=x"),
        "policy.attention", "policy.decoder", "leave policy.attention out",
    ),
    (("cluster.explorers=2",), "cluster.explorers = 2", 'cluster.name = "local"', 'set cluster.name = "ray"'),
    (("cluster.environments=2",), "cluster.environments = 2", 'cluster.name = "local"', 'set cluster.name = "ray"'),
    (("cluster.name=ray", "engine.name=vllm", "engine.url=http://x"), "cluster.name", "engine.url", "without them"),
    (("cluster.name=ray", "engine.name=sglang", "engine.url=http://x"), "cluster.name", "sglang", "without them"),
    (("cluster.ranks=2", "engine.name=vllm"), "engine.name", "cluster.ranks = 2", "engine.url to a server"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "first", "second", "fix"), REFUSED)
def test_a_combination_without_sense_names_both_fields_and_the_fix(
    words: tuple[str, ...], first: str, second: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(["judge", *words])
    assert all(part in str(caught.value) for part in (first, second, fix))


ALLOWED = [
    ("buffer.kind=replay", "buffer.train_prompts=99", "buffer.cooldown=2", "buffer.max_uses=2", "buffer.capacity=9"),
    ("buffer.max_staleness=19", "sync.interval=20"),
    ("sync.offset=1", "train.overlap=true", "sync.partial_rollouts=true"),
    ("algorithm.kl=k1",),
    ("cluster.name=ray", "cluster.explorers=2", "cluster.environments=2", "cluster.ranks=2"),
    ("cluster.name=ray", "cluster.ranks=2", "engine.name=vllm"),
    ("cluster.ranks=2", "engine.name=vllm", "engine.url=http://x"),
    ("algorithm.correction=token", "algorithm.correction_mode=mask", "algorithm.correction_low=0.5"),
]


@pytest.mark.parametrize("words", ALLOWED)
def test_their_sensible_neighbours_are_read(words: tuple[str, ...]) -> None:
    read_config(["judge", *words])


def test_a_table_that_has_a_kind_but_is_no_curve_is_merged_key_by_key() -> None:
    config = read_config(["judge", "buffer.kind=replay", "buffer.cooldown=3", "buffer.kind=replay"])
    assert (config.buffer.kind, config.buffer.cooldown) == ("replay", 3)
