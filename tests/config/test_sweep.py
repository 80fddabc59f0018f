"""Sweep files: every combination is a cell with a name and a whole config; a mistake is one sentence with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.algorithms.table import build_algorithm
from ratchet.config import read
from ratchet.config.sweep import facts, find_sweep, make_cells, read_sweep
from ratchet.core.errors import ConfigError

BASE = '[environment]\nname = "judge"\n[algorithm]\nname = "grpo"\nclip_low = 0.1\n[train]\nsteps = 9\n'
AXES = """
base = "config.toml"
seeds = [0, 1]
[axes.method]
grpo = { algorithm.name = "grpo" }
reinforce = { algorithm = { name = "reinforce" } }
[axes.setting]
interval-20 = { sync = { interval = 20 } }
offline = { sync.offline = true }
"""
RUNS = Path("runs/here")


@pytest.fixture
def write(tmp_path: Path):
    """Return a writer of a sweep file beside its base; it returns the file's path as a word."""

    def file(text: str = AXES, base: str = BASE) -> str:
        (tmp_path / "config.toml").write_text(base)
        (tmp_path / "ages.toml").write_text(text)
        return str(tmp_path / "ages.toml")

    return file


def complaint(word: str, *words: str, only: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        make_cells(read_sweep(word), folder=RUNS, words=words, only=only)
    return str(caught.value)


def test_the_cells_are_the_product_of_the_axes_with_the_last_axis_changing_fastest(write) -> None:
    cells = make_cells(read_sweep(write()), folder=RUNS)
    assert [c.name for c in cells] == [
        "grpo-interval-20-seed0", "grpo-interval-20-seed1", "grpo-offline-seed0", "grpo-offline-seed1",
        "reinforce-interval-20-seed0", "reinforce-interval-20-seed1", "reinforce-offline-seed0",
        "reinforce-offline-seed1",
    ]  # fmt: skip
    assert cells[5].labels == {"method": "reinforce", "setting": "interval-20", "seed": "1"}


def test_a_cell_is_the_base_its_labels_settings_and_the_words_in_this_order(write) -> None:
    sweep = read_sweep(write())
    first, *_, last = make_cells(sweep, folder=RUNS, words=["train.steps=3", "sync.offset=2"])
    assert (first.config.sync.interval, first.config.sync.offline, first.config.run.seed) == (20, False, 0)
    assert (last.config.sync.offline, last.config.run.seed, last.config.sync.offset) == (True, 1, 2)
    assert {c.config.train.steps for c in (first, last)} == {3}
    assert (first.config.run.folder, first.config.run.name) == (str(RUNS), first.name)
    # The base's clip is GRPO's own option: it stays where the method is GRPO and goes where it is another.
    assert (first.config.algorithm.options, last.config.algorithm.options) == ({"clip_low": 0.1}, {})


def test_a_label_that_is_a_number_carries_its_axis_name(write) -> None:
    word = write('base = "config.toml"\n[axes.lr]\n1e-3 = { algorithm.lr = 1e-3 }\n"0.5" = { algorithm.lr = 0.5 }\n')
    assert list(facts(read_sweep(word), [])["cells"]) == ["lr1e-3", "lr0.5"]


def test_only_keeps_the_union_of_an_axis_labels_and_the_intersection_of_axes(write) -> None:
    cells = make_cells(
        read_sweep(write()), folder=RUNS, only=["seed=0", "setting=offline", "method=grpo", "method=reinforce"]
    )
    assert [c.name for c in cells] == ["grpo-offline-seed0", "reinforce-offline-seed0"]


def test_a_base_may_be_a_recipes_name_and_a_sweep_may_be_called_by_its_study(tmp_path, monkeypatch) -> None:
    study = tmp_path / "ages"
    study.mkdir()
    (study / "config.toml").write_text(BASE)
    (study / "sweep.toml").write_text('base = "ages"\nseeds = [4]\n')
    (study / "more.toml").write_text('base = "config.toml"\nseeds = [5]\n')
    monkeypatch.setattr(read, "RECIPES", tmp_path)
    assert [c.config.train.steps for c in make_cells(read_sweep("ages"), folder=RUNS)] == [9]
    names = [read_sweep(w).name for w in ("ages", "ages/more", str(study / "sweep.toml"), str(study / "more.toml"))]
    assert names == ["ages", "ages-more", "ages", "more"]
    with pytest.raises(ConfigError, match=r'There is no sweep "agse". Did you mean "ages"\? A path must end in .toml'):
        find_sweep("agse")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('base = "config.toml"\nseed = [0]\n', 'seed is no key of a sweep. Did you mean "seeds"?'),
        ("seeds = [0]\n", 'base must name the recipe that the axes vary, such as base = "config.toml"'),
        ("base = 3\nseeds = [0]\n", "base = 3 must name the recipe"),
        ('base = "gone.toml"\nseeds = [0]\n', "gone.toml cannot be read: No such file"),
        ('base = "jugde"\nseeds = [0]\n', 'base = "jugde": There is no recipe "jugde". Did you mean "judge"?'),
        ('base = "config.toml"\n', "has no axes, so there is nothing to sweep: add seeds = [0, 1] or [axes.method]"),
        ('base = "config.toml"\naxes = 3\n', "axes = 3 must be tables, such as [axes.method]"),
        ('base = "config.toml"\n[axes.method]\n', "axes.method = {} needs at least one label, such as grpo ="),
        ('base = "config.toml"\naxes.method = ["grpo"]\n', "axes.method = ['grpo'] needs at least one label"),
        ('base = "config.toml"\n[axes."a/b"]\nx = {}\n', "axes.a/b: an axis's name takes letters, digits"),
        ('base = "config.toml"\n[axes.a]\n"../x" = {}\n', 'axes.a: the label "../x" names folders'),
        ('base = "config.toml"\n[axes.a]\nx = 20\n', "axes.a.x = 20 must be a table of settings, such as x ="),
        ('base = "config.toml"\n[axes.a]\nx = {}\nx = {}\n', "ages.toml is not TOML"),
        ('base = "config.toml"\nseeds = []\n', "seeds = [] must list whole numbers of 0 or more, such as"),
        ('base = "config.toml"\nseeds = [0, -1]\n', "seeds = [0, -1] must list whole numbers of 0 or more"),
        ('base = "config.toml"\nseeds = [true]\n', "seeds = [True] must list whole numbers"),
        ('base = "config.toml"\nseeds = [1, 0, 1]\n', "seeds = [1, 0, 1] names 1 twice: leave one out"),
        ('base = "config.toml"\nseeds = [0]\n[axes.seed]\n0 = {}\n', "say the same thing twice: keep one of them"),
        ('base = "config.toml"\n[axes.a]\nlogs = {}\n', 'a cell cannot be called "logs"'),
        (
            'base = "config.toml"\n[axes.a]\nx = {}\nx-y = {}\n[axes.b]\nz = {}\ny-z = {}\n',
            'two cells would be called "x-y-z": a = x, b = y-z, and a = x-y, b = z. Rename a label',
        ),
        (
            'base = "config.toml"\n[axes.a]\nx = { run.folder = "there" }\n',
            "axes.a.x sets run.folder, but a sweep names the folders of its cells itself",
        ),
        (
            'base = "config.toml"\n[axes.a]\nx = { sync.intervall = 3 }\n',
            'ages.toml, cell x: sync.intervall is not a setting. Did you mean "interval"?',
        ),
        (
            'base = "config.toml"\nseeds = [0, 1]\n[axes.a]\nfine = {}\nx = { train.steps = 0 }\n',
            "cell x-seed0: train.steps = 0: input should be greater than or equal to 1",
        ),
        (
            'base = "config.toml"\n[axes.a]\nx = { train.steps = 5 }\ny = { train.steps = 5 }\n',
            "The cells x and y are the same run, setting for setting. Remove a label",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_with_key_value_and_fix(write, text: str, told: str) -> None:
    assert told in complaint(write(text))


@pytest.mark.parametrize(
    ("words", "only", "told"),
    [
        (["train.stepz=3"], (), 'cell grpo-interval-20-seed0: train.stepz is not a setting. Did you mean "steps"?'),
        (["train.steps=0"], (), "train.steps = 0: input should be greater"),
        (["more.toml"], (), '"more.toml" must read section.key=value: a sweep takes one file'),
        (["run.name=x"], (), '"run.name=x" sets run.name, but a sweep names the folders'),
        (["run.seed=3"], (), "The cells grpo-interval-20-seed0 and grpo-interval-20-seed1 are the same run"),
        ([], ("method",), '--only "method" must read axis=label. Axes: method, setting, seed.'),
        ([], ("metod=grpo",), 'metod is no axis of'),
        ([], ("metod=grpo",), 'Did you mean "method"?'),
        ([], ("method=gpro",), 'gpro is no label of method. Did you mean "grpo"?'),
        ([], ("seed=7",), "7 is no label of seed. Known: 0, 1."),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_sentence(write, words: list[str], only, told: str) -> None:
    assert told in complaint(write(), *words, only=only)


def test_the_shipped_sweep_has_methods_settings_and_seeds_that_exist() -> None:
    cells = make_cells(read_sweep("stale"), folder=RUNS)
    assert len(cells) == 4 * 3 * 5
    for cell in cells:
        build_algorithm(cell.config.algorithm.name, cell.config.algorithm.options)
