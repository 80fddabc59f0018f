"""Reading recipes: each class of bad input is one sentence with the key, the value and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.config.read import config_from_tree, find_recipe, merge, parse_override, read_config, recipe_names
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError

LEAST = {"environment": {"name": "judge"}}


def complaint(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(["judge", *words])
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.stepz=3", 'train.stepz is not a setting. Did you mean "steps"?'),
        ("trian.steps=3", 'trian is not a setting. Did you mean "train"?'),
        ("policy.tiny.hiden=16", 'policy.tiny.hiden is not a setting. Did you mean "hidden"?'),
        ("train.steps=many", "train.steps = 'many'"),
        ("train.steps=2.5", "train.steps = 2.5"),
        ("explore.stop=7", "explore.stop = 7"),
        ("train=3", "train = 3"),
        ("train.steps=0", "train.steps = 0: input should be greater than or equal to 1"),
        ("explore.temperature=-1", "explore.temperature = -1: input should be greater than or equal to 0"),
        ("explore.top_p=1.5", "explore.top_p = 1.5: input should be less than or equal to 1"),
        ("explore.top_p=nan", "explore.top_p"),
        ("train.grad_clip=inf", "train.grad_clip"),
        ("train.betas=[0.9, 1.0]", "betas = (0.9, 1.0) must lie in [0, 1)"),
        ("policy.tiny.head_size=5", "policy.tiny.head_size = 5: input should be a multiple of 2"),
        ("policy.tiny.family=gpt2", "policy.tiny.family = 'gpt2'"),
        ("run.device=tpu", "run.device = 'tpu'"),
        ("policy.tiny.key_heads=3", "query_heads = 4 must be a multiple of key_heads = 3"),
        ("explore.temperature=0", "explore.temperature = 0 samples the same answer every time"),
        ("train.updates_per_batch=100", "explore.prompts_per_step = 64"),
        ("algorithm.lr=0", "algorithm.lr = 0: must be above 0 at every step"),
        ("algorithm.lr=nan", "algorithm.lr"),
        ("algorithm.lr=inf", "algorithm.lr"),
        ('algorithm.lr={kind="linear", start=1e-3, end=-1e-3, steps=9}', "must be above 0 at every step"),
        ('algorithm.lr={kind="linear", start=nan, end=1e-3, steps=9}', "algorithm.lr.start"),
        ('algorithm.lr={kind="straight", start=1, end=2, steps=9}', 'kind = "constant", "linear", "cosine" or "steps"'),
        ('algorithm.lr={kind="linear", start=1, end=2}', "algorithm.lr.steps is missing"),
        ('algorithm.lr={kind="linear", start=1, end=2, steps=3, warmap=1}', "algorithm.lr.warmap is not a setting"),
        ('algorithm.lr={kind="steps", values={5=1.0}}', "values must hold step 0"),
        ("sync.interval=0", "sync.interval = 0: must be a whole number, at least 1, at every step"),
        ("sync.interval=2.5", "sync.interval = 2.5: must be a whole number"),
        ('sync.interval={kind="steps", values={0=1, 9=0}}', "must be a whole number, at least 1, at every step"),
        (
            'sync.interval={kind="linear", start=4, end=0.5, steps=9}',
            "must be a whole number, at least 1, at every step",
        ),
        ('sync.interval={kind="linear", start=1, end=4, steps=9}', "must be a whole number, at least 1, at every step"),
        ("=3", '"=3" must read section.key=value'),
        ("train.=3", "must read section.key=value"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence_with_key_value_and_bound(word: str, told: str) -> None:
    assert told in complaint(word)


def test_a_run_without_an_environment_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="environment is missing: set it in the recipe"):
        config_from_tree({})
    with pytest.raises(ConfigError, match=r"environment\.name is missing"):
        config_from_tree({"environment": {}})


def test_a_command_line_without_a_recipe_lists_the_recipes() -> None:
    with pytest.raises(ConfigError, match=r"Name a recipe or a TOML file first. Recipes: .*judge"):
        read_config(["train.steps=3"])


def test_a_recipe_that_does_not_exist_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'no recipe "jugde". Did you mean "judge"'):
        read_config(["jugde"])


def test_a_file_that_does_not_exist_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no file .*looked in {tmp_path}"):
        read_config([str(tmp_path / "none.toml")])


@pytest.mark.parametrize("content", [b"[train\nsteps = 3", b"[train]\nsteps = \xff", b"steps = = 3"])
def test_broken_toml_is_named_with_its_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        read_config([str(file)])


def test_a_recipe_that_extends_itself_by_way_of_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(ConfigError, match=r"a\.toml extends itself, by way of a\.toml -> b\.toml"):
        read_config([str(tmp_path / "a.toml")])


def test_a_recipe_that_extends_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "gone.toml"\n')
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        read_config([str(tmp_path / "a.toml")])


def test_later_files_and_words_win_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('[environment]\nname = "judge"\n[train]\nsteps = 5\ngrad_clip = 2.0\n')
    (tmp_path / "child.toml").write_text('extends = "base.toml"\n[train]\nsteps = 6\n')
    (tmp_path / "more.toml").write_text("[train]\nweight_decay = 0.5\n")
    config = read_config([str(tmp_path / "child.toml"), str(tmp_path / "more.toml"), "train.grad_clip=3"])
    assert (config.train.steps, config.train.grad_clip, config.train.weight_decay) == (6, 3.0, 0.5)


def test_a_curve_is_replaced_whole() -> None:
    curve = {"kind": "linear", "start": 1.0, "end": 2.0, "steps": 3, "warmup": 1}
    other = {"kind": "constant", "value": 1.0}
    assert merge({"lr": curve}, {"lr": other}) == {"lr": other}


def test_another_algorithm_keeps_the_shared_settings_and_drops_the_options_of_the_first() -> None:
    config = read_config(["judge", "algorithm.name=reinforce"])
    assert config.algorithm.options == {}
    assert config.algorithm.lr == read_config(["judge"]).algorithm.lr


@pytest.mark.parametrize(
    ("word", "tree"),
    [
        ("train.steps=20", {"train": {"steps": 20}}),
        ("algorithm.lr=1e-3", {"algorithm": {"lr": 1e-3}}),
        ("record.rollouts=false", {"record": {"rollouts": False}}),
        ("environment.name=my.py:Env", {"environment": {"name": "my.py:Env"}}),
        ("run.name=", {"run": {"name": ""}}),
        ("environment.prompt=a=b", {"environment": {"prompt": "a=b"}}),
        ('explore.stop=["a", "b"]', {"explore": {"stop": ["a", "b"]}}),
        (" train . steps =3", {"train": {"steps": 3}}),
    ],
)
def test_an_override_is_read_as_toml_and_as_text_where_it_is_none(word: str, tree: dict[str, object]) -> None:
    assert parse_override(word) == tree


def test_an_override_cannot_smuggle_in_a_second_setting() -> None:
    assert parse_override("train.steps=3\nx = 4") == {"train": {"steps": "3\nx = 4"}}


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_reads(name: str) -> None:
    assert isinstance(read_config([name]), RunConfig)
    assert find_recipe(name).is_file()


def test_a_config_cannot_be_written_to() -> None:
    config = config_from_tree(LEAST)
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3
