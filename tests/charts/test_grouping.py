"""Which runs are seeds of one method, what methods and settings are called, and which record fits them."""

import inspect
import json
from pathlib import Path

import pytest

from ratchet.algorithms.table import ALGORITHMS
from ratchet.charts.grouping import find_runs, flat_settings, grouped, read_runs, setting_label
from ratchet.charts.labels import GREEN, GREY, ORANGE, PUBLISHED, PURPLE, method_label, styles
from ratchet.charts.reference import read_references, reference_for, reference_label
from ratchet.config.read import RECIPES, find_recipe, read_tree
from ratchet.core.errors import ConfigError


def tree(algorithm: str = "grpo", seed: int = 0, sync: dict | None = None, study: str = "stale", **options) -> dict:
    return {
        "run": {"study": study, "seed": seed},
        "environment": {"name": "judge"},
        "algorithm": {"name": algorithm, "lr": 3e-4, **options},
        "sync": sync or {"interval": 1},
    }


def sorted_out(make_run, trees, keys=()):
    folders = [make_run(f"run-{i}", steps=3, config=t).folder for i, t in enumerate(trees)]
    runs, _ = read_runs(folders)
    settings, notes = grouped(runs, keys)
    return {s.label: {m.label: [r.seed for r in m.runs] for m in s.methods} for s in settings}, notes


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_labels_know_the_defaults_of_the_table_of_algorithms(name: str) -> None:
    parameters = inspect.signature(ALGORITHMS[name]).parameters
    assert PUBLISHED[name].defaults == {key: p.default for key, p in parameters.items()}


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("grpo", {}, "GRPO"),
        ("grpo", {"clip_low": 0.2, "clip_high": 0.2}, "GRPO"),
        ("grpo", {"clip_high": 0.3}, "GRPO, clip_high = 0.3"),
        ("rec_one_side", {}, "REC-OneSide-NoIS (0.2)"),
        ("rec_one_side", {"clip_low": 0.6, "clip_high": 2.0}, "REC-OneSide-NoIS (0.6, 2)"),
        ("rec_one_side", {"importance": True}, "REC-OneSide-IS (0.2)"),
        ("rec_ring", {}, "REC-Ring-NoIS (0.2) (0.6, 2)"),
        ("red_weight", {}, "RED-Weight"),
        ("red_weight", {"temperature": 0.5}, "RED-Weight, temperature = 0.5"),
        ("reinforce", {}, "REINFORCE"),
        ("asymre", {}, "AsymRE (-0.1)"),
        ("mine.py:builder", {"x": 1}, "mine.py:builder, x = 1"),
    ],
)
def test_methods_are_called_as_in_their_papers(name: str, options: dict, label: str) -> None:
    assert method_label(name, options) == label


def test_the_reference_figures_methods_have_its_colours_and_no_colour_is_given_twice() -> None:
    look = styles({"a": "grpo", "b": "rec_one_side", "c": "red_weight", "d": "reinforce", "e": "grpo", "f": "dapo"})
    assert [look[k][0] for k in "abcd"] == [GREEN, PURPLE, ORANGE, GREY]
    assert len({colour for colour, _ in look.values()}) == 6


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"sync": {"interval": 20}}, "sync_interval = 20"),
        ({"sync": {"interval": 20.0, "offset": 4}}, "sync_interval = 20, sync_offset = 4"),
        ({"sync": {"interval": 20, "offline": True}}, "offline"),
        ({"data": {"from_run": "runs/x"}}, "offline"),
        (
            {"sync": {"interval": {"kind": "steps", "values": {"0": 1, "40": 20}}}},
            "sync_interval = 1 then 20 from step 40",
        ),
        ({}, "sync_interval = 1"),
    ],
)
def test_settings_are_called_after_how_stale_the_data_is(config: dict, label: str) -> None:
    assert setting_label(flat_settings(config)) == label


def test_rows_go_from_fresh_to_stale_and_seeds_are_pooled(make_run) -> None:
    syncs = [{"interval": 1, "offline": True}, {"interval": 20}, {"interval": 1}]
    found, notes = sorted_out(make_run, [tree(a, s, y) for y in syncs for a in ("reinforce", "grpo") for s in (1, 0)])
    assert list(found) == ["sync_interval = 1", "sync_interval = 20", "offline"]
    assert all(list(methods.items()) == [("GRPO", [0, 1]), ("REINFORCE", [0, 1])] for methods in found.values())
    assert notes == []


def test_runs_that_differ_in_anything_else_are_not_pooled_and_the_label_says_in_what(make_run) -> None:
    found, _ = sorted_out(make_run, [tree(), tree(lr=1e-3), tree(seed=1, lr=1e-3)])
    assert found == {"sync_interval = 1": {"GRPO, lr = 0.0003": [0], "GRPO, lr = 0.001": [0, 1]}}


def test_a_difference_between_rows_only_stands_in_their_titles(make_run) -> None:
    found, _ = sorted_out(
        make_run,
        [tree(), tree("dapo"), tree(lr=1e-3, sync={"interval": 8}), tree("dapo", lr=1e-3, sync={"interval": 8})],
    )
    assert found == {
        "sync_interval = 1, lr = 0.0003": {"GRPO": [0], "DAPO": [0]},
        "sync_interval = 8, lr = 0.001": {"GRPO": [0], "DAPO": [0]},
    }


def test_places_records_lengths_and_left_out_defaults_make_no_difference(make_run) -> None:
    other = tree(seed=1, clip_low=0.2, kl_coef=0.0) | {"record": {"rollouts": False}, "train": {"steps": 7}}
    found, _ = sorted_out(make_run, [tree(), other])
    assert found == {"sync_interval = 1": {"GRPO": [0, 1]}}


def test_a_label_that_was_asked_for_pools_the_rest_and_says_so(make_run) -> None:
    found, notes = sorted_out(make_run, [tree(lr=1e-3), tree(), tree("dapo")], ["algorithm.lr"])
    assert found == {"sync_interval = 1": {"lr = 0.0003": [0, 0], "lr = 0.001": [0]}}
    assert any("pools runs that differ in algorithm.clip_high, algorithm.name" in note for note in notes)
    assert any("seed 0 more than once" in note for note in notes)


def test_an_unknown_label_names_the_nearest(make_run) -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        sorted_out(make_run, [tree()], ["algorithm.lrr"])


def test_a_folder_stands_for_the_runs_below_it_each_once(make_run, tmp_path: Path) -> None:
    a, b = make_run("sweep/a", steps=1).folder, make_run("sweep/deep/b", steps=1).folder
    make_run("sweep/discarded/c", steps=1)
    (tmp_path / "sweep" / "logs").mkdir()
    (tmp_path / "sweep" / "logs" / "config.toml").write_text("")
    assert [p.name for p in find_runs([tmp_path / "sweep", a])] == ["a", "b"]
    assert find_runs([b]) == [b]


def test_a_folder_without_runs_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder: it has no config"):
        find_runs([tmp_path])
    with pytest.raises(ConfigError, match="is not a run folder: there is no such folder"):
        find_runs([tmp_path / "none"])


def test_runs_without_steps_or_with_broken_files_are_left_out_with_a_sentence(make_run) -> None:
    good, empty, broken, torn = (
        make_run(n, steps=k) for n, k in (("good", 2), ("empty", 0), ("broken", 2), ("torn", 2))
    )
    (broken.folder / "config.toml").write_text("= no toml")
    (torn.folder / "metrics.jsonl").write_text("no json\n")
    runs, told = read_runs([s.folder for s in (good, empty, broken, torn)])
    assert [r.name for r in runs] == ["good"]
    assert ["no finished step" in told[0], *("cannot be read" in t for t in told[1:])] == [True] * 3
    with pytest.raises(ConfigError, match="nothing to compare"):
        read_runs([empty.folder])


def write_reference(recipes: Path, study: str, label: str, config: dict, rewards=((0.5, 0.7), (0.6, 0.8))) -> None:
    folder = recipes / study / "reference" / label
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"config": config}))
    for seed, values in enumerate(rewards):
        lines = [json.dumps({"step": k, "reward/mean": v, "time/step": 1.0}) for k, v in enumerate(values)]
        (folder / f"seed{seed}.jsonl").write_text("\n".join(lines) + "\n")


def fitting(make_run, recipes: Path, config: dict):
    runs, _ = read_runs([make_run("new", steps=3, config=config).folder])
    settings, _ = grouped(runs)
    return reference_for(settings[0].methods[0], read_references(recipes, config["run"]["study"]))


def test_the_record_with_the_same_algorithm_staleness_and_environment_fits(make_run, tmp_path: Path) -> None:
    stale = {"interval": 20}
    write_reference(tmp_path, "stale", "grpo-1", tree())
    write_reference(tmp_path, "stale", "grpo-20", tree(sync=stale))
    write_reference(tmp_path, "stale", "dapo-20", tree("dapo", sync=stale))
    found = fitting(make_run, tmp_path, tree(seed=9, sync=stale))
    assert (found.label, len(found.runs), found.differs_in) == ("grpo-20", 2, ())


def test_of_several_records_the_one_that_differs_least_fits_and_the_difference_is_known(make_run, tmp_path) -> None:
    write_reference(tmp_path, "stale", "a", tree(lr=1e-2, kl_coef=0.1))
    write_reference(tmp_path, "stale", "b", tree(lr=1e-2))
    found = fitting(make_run, tmp_path, tree())
    assert (found.label, found.differs_in) == ("b", ("algorithm.lr",))


@pytest.mark.parametrize(
    "other",
    [
        tree(clip_high=0.3),
        tree(sync={"interval": 2}),
        tree() | {"environment": {"name": "judge", "full_share": 0.5}},
        tree(study="judge"),
    ],
)
def test_another_option_staleness_environment_or_study_has_no_record(make_run, tmp_path: Path, other: dict) -> None:
    write_reference(tmp_path, "stale", "grpo-1", tree())
    assert fitting(make_run, tmp_path, other) is None


def test_a_broken_record_is_told(make_run, tmp_path: Path) -> None:
    write_reference(tmp_path, "stale", "grpo-1", tree())
    (tmp_path / "stale/reference/grpo-1/seed1.jsonl").write_text("{")
    with pytest.raises(ConfigError, match="Record it again"):
        fitting(make_run, tmp_path, tree())


def test_records_are_named_after_algorithm_and_staleness(make_run) -> None:
    trees = [tree("rec_one_side", sync={"interval": 20}), tree(sync={"offline": True}), tree(sync={"offset": 10})]
    runs, _ = read_runs([make_run(f"{i}", steps=1, config=t).folder for i, t in enumerate(trees)])
    assert [reference_label(run) for run in runs] == ["rec_one_side-20", "grpo-offline", "grpo-1-offset10"]


@pytest.mark.parametrize(
    ("recipe", "label"), [("judge", "config"), ("judge/collapse", "collapse"), ("judge/gym", "gym")]
)
def test_shipped_recipes_of_judge_find_their_own_record(make_run, recipe: str, label: str) -> None:
    found = fitting(make_run, RECIPES, read_tree(find_recipe(recipe)))
    assert (found.label, found.differs_in) == (label, ())
