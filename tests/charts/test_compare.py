"""The comparison of methods: what is drawn, what the tables hold, and what the sentences say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from ratchet.charts.axes import axis_named
from ratchet.charts.canvas import make_figure
from ratchet.charts.compare import Asked, Comparison, compare, drawing
from ratchet.charts.curves import pooled, spans_decades
from ratchet.charts.grouping import grouped, read_runs
from ratchet.charts.labels import GREEN, GREY, ORANGE, PURPLE
from ratchet.charts.reference import read_references
from ratchet.charts.results import held, kl_at, level_of, outcome
from ratchet.charts.tables import aligned
from ratchet.charts.verdicts import cautions, reference_sentences, reference_table, results_table, sentences
from ratchet.core.errors import ConfigError

METRICS = ("reward/mean", "kl/ref", "entropy", "len/response/mean")


def config(algorithm: str = "grpo", seed: int = 0, interval: int = 20, **changes) -> dict:
    return {
        "run": {"study": "stale", "seed": seed},
        "environment": {"name": "judge"},
        "algorithm": {"name": algorithm, "lr": 3e-4},
        "sync": {"interval": interval},
    } | changes


def rows(rewards, kl=0.01, length=100.0) -> list[dict[str, float]]:
    return [
        {
            "step": k,
            "reward/mean": reward,
            "kl/ref": kl * k,
            "entropy": 1.0,
            "len/response/mean": length,
            "tokens/generated": 1000.0,
            "time/step": 2.0,
        }
        for k, reward in enumerate(rewards)
    ]


def rising(top: float, steps: int = 20) -> list[float]:
    """Return ten steps up in a straight line, and the top from then on."""
    return [top * min(1.0, k / 10) for k in range(steps)]


def compared(make_run, recipes: Path | None = None, **cells) -> Comparison:
    """Return the comparison of runs given as name = (config, rows)."""
    folders = [make_run(name, config=tree, rows=found).folder for name, (tree, found) in cells.items()]
    runs, left_out = read_runs(folders)
    settings, notes = grouped(runs)
    references = read_references(recipes, "stale") if recipes is not None else []
    return Comparison(settings, [[outcome(m) for m in s.methods] for s in settings], references, [*left_out, *notes])


def three_methods(make_run, intervals=(20,), recipes: Path | None = None) -> Comparison:
    tops = {"grpo": 0.8, "rec_one_side": 0.7, "red_weight": 0.9, "reinforce": 0.6}
    cells = {
        f"{name}-{i}-{seed}": (config(name, seed, i), rows(rising(top + 0.01 * seed)))
        for name, top in tops.items()
        for i in intervals
        for seed in range(3)
    }
    return compared(make_run, recipes, **cells)


def record(recipes: Path, label: str, tree: dict, seeds) -> None:
    folder = recipes / "stale" / "reference" / label
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"config": tree}))
    for seed, found in enumerate(seeds):
        (folder / f"seed{seed}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def test_the_figure_has_a_row_per_setting_a_panel_per_metric_and_one_legend(make_run) -> None:
    figure = make_figure(drawing(three_methods(make_run, (1, 20)), METRICS, axis_named("step")))
    assert [axes.get_title() for axes in figure.axes] == ["sync_interval = 1"] * 4 + ["sync_interval = 20"] * 4
    names = ["Training Reward", "KL Divergence", "Entropy", "Response Length"]
    assert [axes.get_ylabel() for axes in figure.axes] == names * 2
    (legend,) = figure.legends
    labels = ["GRPO", "REC-OneSide-NoIS (0.2)", "RED-Weight", "REINFORCE"]
    assert [text.get_text() for text in legend.get_texts()] == labels
    for axes in figure.axes:
        assert [to_hex(line.get_color()).upper() for line in axes.lines] == [GREEN, PURPLE, ORANGE, GREY]
        assert len(axes.collections) == 4  # one band each
        assert axes.get_yscale() == "linear"


def test_one_seed_has_no_band_and_the_caption_says_so(make_run) -> None:
    comparison = compared(make_run, only=(config(), rows(rising(0.8))))
    made = drawing(comparison, METRICS, axis_named("step"))
    assert all(not axes.collections for axes in make_figure(made).axes)
    assert "One seed of GRPO: no band and no interval" in made.caption


def test_a_recorded_reference_is_a_thin_dashed_line_of_the_methods_colour_named_last(make_run, tmp_path: Path) -> None:
    record(tmp_path, "grpo-20", config(), [rows(rising(0.7)), rows(rising(0.9))])
    comparison = three_methods(make_run, recipes=tmp_path)
    made = drawing(comparison, ["reward/mean"], axis_named("step"))
    figure = make_figure(made)
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [to_hex(line.get_color()).upper() for line in dashed] == [GREEN]
    assert dashed[0].get_ydata()[-1] == pytest.approx(0.8)
    assert figure.legends[0].get_texts()[-1].get_text() == "recorded reference"
    assert "Thin dashes: recorded reference" in made.caption


def test_noisy_curves_are_smoothed_over_a_faint_line_of_single_steps(make_run) -> None:
    noisy = [0.5 + 0.2 * (-1) ** k for k in range(60)]
    made = drawing(compared(make_run, a=(config(), rows(noisy))), ["reward/mean"], axis_named("step"))
    faint, line = make_figure(made).axes[0].lines
    assert faint.get_alpha() < 0.5
    assert max(line.get_ydata()[5:-5]) < max(faint.get_ydata())
    assert "centred means of 3 steps; faint: single steps" in made.caption


def test_a_divergence_over_more_than_two_decades_has_a_logarithmic_axis(make_run) -> None:
    calm, wild = rows(rising(0.8), kl=0.001), rows(rising(0.8), kl=0.9)
    comparison = compared(make_run, a=(config(), calm), b=(config("reinforce"), wild))
    made = drawing(comparison, ["kl/ref"], axis_named("step"))
    assert make_figure(made).axes[0].get_yscale() == "log"
    assert "Logarithmic: KL Divergence." in made.caption


def test_the_start_of_a_divergence_from_0_is_no_decade() -> None:
    assert not spans_decades([[0.0, 1e-5, 1e-3, *([0.05] * 40)]])
    assert spans_decades([[0.01] * 20, [5.0] * 20])
    assert not spans_decades([[0.0, 0.0]])


def test_seeds_of_different_length_are_means_of_those_that_go_on(make_run) -> None:
    comparison = compared(make_run, a=(config(), rows([1.0] * 4)), b=(config(seed=1), rows([3.0] * 6)))
    runs = comparison.settings[0].methods[0].runs
    curve = pooled(runs, "reward/mean", axis_named("step"), 1)
    assert curve.smooth == [2.0] * 4 + [3.0] * 2
    assert curve.counts == [2] * 4 + [1] * 2
    assert [places for places, _, _ in curve.bands] == [[0.0, 1.0, 2.0, 3.0]]
    assert comparison.outcomes[0][0].steps == (4, 6)
    told = " ".join(sentences(comparison.settings[0], comparison.outcomes[0]))
    assert "its seeds have 4 to 6 steps" in told
    assert "not all steps done in a, b" in told


@pytest.mark.parametrize(("x", "last"), [("step", 19.0), ("tokens", 20000.0), ("time", 40 / 60)])
def test_curves_can_be_drawn_over_what_they_cost(make_run, x: str, last: float) -> None:
    comparison = three_methods(make_run)
    curve = pooled(comparison.settings[0].methods[0].runs, "reward/mean", axis_named(x), 1)
    assert curve.x[-1] == pytest.approx(last)


def test_the_table_holds_the_numbers_worked_out_by_hand(make_run) -> None:
    # Rewards 0, 0.08, .. 0.72, then ten times 0.8: the first five steps average 0.16.
    comparison = compared(make_run, a=(config(), rows(rising(0.8), kl=0.01, length=120.0)))
    head, (line,) = (table := results_table(comparison.settings[0], comparison.outcomes[0])).head, table.body
    cells = dict(zip(head, line, strict=True))
    assert cells["method"] == "GRPO"
    assert (cells["seeds"], cells["steps"]) == ("1", "20")
    assert cells["first reward"] == "0.160"
    assert cells["final reward (95 %)"] == "0.800"
    assert cells["best (step)"] == "0.800 (12)"  # the mean of five is 0.8 from step 12 on
    assert cells["mean over steps"] == f"{(0.08 * 45 + 0.8 * 10) / 20:.3f}"
    # Level 0.72; smoothed rewards are 0.704 at step 9 and 0.752 at 10, so it is reached at 9 + 1/3: KL 0.0933.
    assert cells["KL at 0.720"] == "0.0933"
    assert cells["KL at end"] == "0.170"
    assert (cells["collapse"], cells["length"], cells["time"]) == ("-", "120.0", "40.0 s")


def test_the_final_reward_has_its_interval_over_seeds(make_run) -> None:
    comparison = three_methods(make_run)
    lines = {line[0]: line for line in results_table(comparison.settings[0], comparison.outcomes[0]).body}
    assert lines["GRPO"][4] == "0.810 (0.800 to 0.820)"


def test_collapsed_methods_are_named_with_their_steps_and_set_no_level(make_run) -> None:
    fall = [*rising(0.9, 30), *([0.0] * 20)]
    comparison = compared(
        make_run,
        a=(config(), rows(rising(0.8, 50))),
        b=(config("reinforce"), rows(fall)),
        c=(config("reinforce", seed=1), rows(rising(0.9, 50))),
    )
    outcomes = comparison.outcomes[0]
    good, bad = outcomes
    # One 0.9 in the window of five makes 0.18, two 0.36: the second is step 30, the first below 0.45.
    assert bad.collapses == (30,)
    assert (good.collapsed, bad.collapsed) == (False, True)
    assert level_of(outcomes) == pytest.approx(0.72)
    told = sentences(comparison.settings[0], outcomes)
    assert "REINFORCE collapsed in 1 of 2 seeds, at step 30." in told
    assert results_table(comparison.settings[0], outcomes).body[1][9] == "30 (1 of 2)"


def test_a_level_that_is_never_reached_has_no_divergence(make_run) -> None:
    comparison = compared(make_run, a=(config(), rows(rising(0.8))))
    assert kl_at(comparison.settings[0].methods[0], 0.9) is None
    assert kl_at(comparison.settings[0].methods[0], None) is None


def test_a_difference_beyond_the_spread_is_told_apart_from_one_within(make_run) -> None:
    clear = three_methods(make_run)
    told = " ".join(sentences(clear.settings[0], clear.outcomes[0]))
    assert "Highest final reward: RED-Weight, 0.910 (0.900 to 0.920); then GRPO, 0.810" in told
    assert "Every seed of RED-Weight ends above every seed of GRPO" in told
    # Three of six can be chosen in 20 ways, two of which part the methods wholly.
    assert "chance alone would part 3 from 3 seeds like that, one way or the other, in 1 of 10 cases" in told


def test_methods_whose_seeds_overlap_are_not_ranked(make_run) -> None:
    cells = {f"g{s}": (config("grpo", s), rows(rising(0.7 + 0.1 * s))) for s in range(3)}
    cells |= {f"d{s}": (config("dapo", s), rows(rising(0.72 + 0.1 * s))) for s in range(3)}
    comparison = compared(make_run, **cells)
    told = " ".join(sentences(comparison.settings[0], comparison.outcomes[0]))
    assert "does not exceed the spread over seeds (0.200), so neither is shown to be better" in told
    # 0.72 beats one, 0.82 two and 0.92 three of GRPO's: 6 of 9 pairs.
    assert "A seed of DAPO ends above one of GRPO with probability 0.67 (" in told


def test_offline_the_held_out_tasks_are_drawn_and_compared_instead_of_the_training_reward(make_run) -> None:
    folders = []
    for name, ends in {"grpo": (0.5, 0.6), "red_weight": (0.8, 0.9)}.items():
        for seed, end in enumerate(ends):
            made = make_run(
                f"{name}{seed}", config=config(name, seed, sync={"interval": 1, "offline": True}), rows=rows([0.3] * 20)
            )
            for step, value in ((10, 0.4), (20, end)):
                made.append_event("eval", step, split="test", reward_mean=value)
            folders.append(made.folder)
    settings, notes = grouped(read_runs(folders)[0])
    comparison = Comparison(settings, [[outcome(m) for m in s.methods] for s in settings], [], notes)
    told = " ".join(sentences(settings[0], comparison.outcomes[0]))
    assert "Highest held-out reward: RED-Weight, 0.850 (0.800 to 0.900); then GRPO, 0.550" in told
    assert "collapsed" not in told
    table = results_table(settings[0], comparison.outcomes[0])
    assert table.body[0][table.head.index("held out (95 %)")].startswith("0.550")
    panel = drawing(comparison, METRICS, axis_named("step")).panels[0]
    assert panel.y_label == "Held-out Reward"
    assert panel.lines[0].x == [10.0, 19.0]


def test_few_seeds_and_one_seed_are_cautioned(make_run) -> None:
    three = cautions(three_methods(make_run).outcomes[0])
    assert three == [
        "3 seeds: intervals are wide and themselves uncertain. With 2 or 3 seeds an interval is the span from the "
        "lowest to the highest."
    ]


def test_a_difference_of_single_seeds_is_not_judged(make_run) -> None:
    comparison = compared(make_run, a=(config(), rows(rising(0.8))), b=(config("dapo"), rows(rising(0.9))))
    assert "cannot be judged: one seed has no spread" in " ".join(
        sentences(comparison.settings[0], comparison.outcomes[0])
    )


@pytest.mark.parametrize(("top", "within"), [(0.65, True), (0.95, True), (0.45, False), (1.2, False)])
def test_a_run_is_held_against_the_recorded_seeds_widened_by_their_spread(
    make_run, tmp_path: Path, top: float, within: bool
) -> None:
    # Recorded 0.7 and 0.9: 0.2 apart, so 0.5 to 1.1 is within.
    record(tmp_path, "grpo-20", config(), [rows(rising(0.7), length=90.0), rows(rising(0.9), length=110.0)])
    comparison = compared(make_run, tmp_path, a=(config(seed=7), rows(rising(top), length=110.0)))
    (found,) = held(comparison.settings[0], comparison.references)
    assert found.bounds == pytest.approx((0.5, 1.1))
    assert found.within is within
    (line,) = reference_table(comparison.settings[0], [found]).body
    assert line[1:4] == ("grpo-20", "2", "19")
    assert line[5:8] == ("0.800 (0.700 to 0.900)", "yes" if within else "NO", "110 (+10, +10.0 %)")
    side = "Within the recorded reference: GRPO." if within else "recorded reference: "
    assert side in " ".join(reference_sentences([found]))


def test_a_shorter_run_is_held_against_the_same_steps_of_the_record(make_run, tmp_path: Path) -> None:
    record(tmp_path, "grpo-20", config(), [rows(rising(0.8)), rows(rising(0.8))])
    comparison = compared(make_run, tmp_path, a=(config(), rows(rising(0.8)[:8])))
    (found,) = held(comparison.settings[0], comparison.references)
    assert (found.last_step, found.ours) == (7, pytest.approx(0.4))
    assert found.expected == pytest.approx(0.4)
    assert found.within


def test_one_recorded_seed_judges_nothing(make_run, tmp_path: Path) -> None:
    record(tmp_path, "grpo-20", config(), [rows(rising(0.8))])
    comparison = compared(make_run, tmp_path, a=(config(), rows(rising(0.1))))
    (found,) = held(comparison.settings[0], comparison.references)
    assert found.within is None
    assert reference_table(comparison.settings[0], [found]).body[0][6] == "one seed"


def test_everything_is_written_beside_the_runs(make_run, tmp_path: Path) -> None:
    folder = make_run("sweep/a", config=config(), rows=rows(rising(0.8))).folder.parent
    make_run("sweep/b", config=config("dapo"), rows=rows(rising(0.9)))
    written = compare(Asked([folder], recipes=tmp_path))
    assert [p.name for p in written.files] == ["compare.png", "compare.svg", "compare.md"]
    assert all(p.parent == folder.resolve() for p in written.files)
    page = (folder / "compare.md").read_text()
    assert "](compare.png)" in page
    assert "| GRPO | 1 | 20 |" in page
    assert "arXiv 2108.13264" in page
    assert "Highest final reward: DAPO" in (folder / "compare.txt").read_text()
    first = [p.read_bytes() for p in written.files]
    assert [p.read_bytes() for p in compare(Asked([folder], recipes=tmp_path)).files] == first


def test_one_run_has_its_comparison_among_its_figures(make_run, tmp_path: Path) -> None:
    store = make_run("a.5", config=config(), rows=rows(rising(0.8)))
    files = compare(Asked([store.folder], metrics=["entropy"], recipes=tmp_path)).files
    assert files[0] == store.folder / "figures" / "compare.png"


def test_runs_without_a_common_metric_and_unknown_metrics_are_refused(make_run, tmp_path: Path) -> None:
    a = make_run("a", config=config(), rows=[{"step": 0, "reward/mean": 1.0}]).folder
    b = make_run("b", config=config(), rows=[{"step": 0, "entropy": 1.0}]).folder
    with pytest.raises(ConfigError, match="share none of the metrics"):
        compare(Asked([a, b]))
    with pytest.raises(ConfigError, match="Did you mean"):
        compare(Asked([a, b], metrics=["entropi"]))


def test_a_missing_record_is_said(make_run, tmp_path: Path) -> None:
    record(tmp_path, "grpo-1", config(interval=1), [rows(rising(0.8))])
    store = make_run("a", config=config(), rows=rows(rising(0.8)))
    text = compare(Asked([store.folder], recipes=tmp_path)).text
    assert "No recorded reference has the algorithm, staleness and environment of GRPO (sync_interval = 20)" in text
    assert "No recorded" not in compare(Asked([store.folder], recipes=tmp_path, reference=False)).text


def test_columns_are_flush_and_long_heads_take_two_lines() -> None:
    assert aligned(("who", "very long head"), [("a", "1"), ("bcd", "23")]) == (
        "          very\nwho  long head\na            1\nbcd         23"
    )
    assert aligned(("a", "b"), [("x", "1")]) == "a  b\nx  1"


def test_importing_the_comparison_loads_nothing_heavy() -> None:
    code = (
        "import sys, ratchet.charts.compare, ratchet.cli.compare\n"
        "assert not {'torch', 'matplotlib', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
