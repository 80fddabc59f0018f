"""Figures of any log: ours, another framework's, one step, none that is finite, a hundred thousand steps."""

from __future__ import annotations

import json
import math
import random
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from ratchet.charts.canvas import Curve, Line
from ratchet.charts.figure import Look, draw, drawing_of
from ratchet.charts.remark import Remark
from ratchet.charts.source import read_sources
from ratchet.cli.chart import chart_files
from ratchet.core.errors import ConfigError

HOSTILE = "<script>alert(1)</script>$x_{$|`--\x07奖励"

WriteLog = Callable[..., Path]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Return a function that writes a log of verl's, as JSON lines, from a function of the step."""

    def write(name: str, steps: int, values: Callable[[int], Mapping[str, float]]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        with path.open("w") as lines:
            for step in range(1, steps + 1):
                lines.write(json.dumps({"step": step, "data": dict(values(step))}) + "\n")
        return path

    return write


def verl(step: int) -> dict[str, float]:
    noise = random.Random(step)
    return {
        "critic/score/mean": step / 100 + noise.gauss(0, 0.02),
        "response_length/mean": 500.0 + step,
        "actor/entropy": 0.5,
        "perf/total_num_tokens": 1000.0,
        "timing_s/step": 60.0,
    }


def caption(files: Sequence[Path]) -> str:
    return files[0].with_suffix(".txt").read_text(encoding="utf-8")


def test_every_style_draws_a_log_of_another_framework(write_log: WriteLog, tmp_path: Path) -> None:
    sources = read_sources([str(write_log("run", 40, verl))])
    for style in ("judge", "stale", "reproduce", "swarm"):
        told = drawing_of(sources, Look(style=style)).caption
        assert re.search(r"(Train Reward|Training Reward): from 0\.\d+ to 0\.\d+", told)
    told = caption(draw(sources, Look(style="swarm"), tmp_path / "swarm"))
    assert "x axis: step, since RL FLOPs were not recorded" in told


def test_the_caption_has_the_numbers_of_the_drawn_line(write_log: WriteLog) -> None:
    # 20 quiet steps are drawn as they are, so the line's own ends are the caption's.
    path = write_log("quiet", 20, lambda k: {"critic/score/mean": float(k), "response_length/mean": 7.0})
    drawing = drawing_of(read_sources([str(path)]), Look(["reward/mean"]))
    (line,) = drawing.panels[0].lines
    assert isinstance(line, Line)
    start, end = sum(line.y[:5]) / 5, sum(line.y[-5:]) / 5
    assert (start, end) == (3.0, 18.0)
    assert "from 3 to 18 (means of the first and last 5 steps), change 15" in drawing.caption
    assert f"highest {max(line.y):.0f} at step {line.x[-1]:.0f}" in drawing.caption


def test_one_step_is_drawn(write_log: WriteLog, tmp_path: Path) -> None:
    sources = read_sources([str(write_log("one", 1, verl))])
    for style in ("judge", "stale", "reproduce", "swarm"):
        assert "at step 1, the only one" in drawing_of(sources, Look(style=style)).caption
    draw(sources, Look(style="reproduce"), tmp_path / "reproduce")


def test_a_series_that_is_never_finite_is_told_and_leaves_its_panel_empty(write_log: WriteLog, tmp_path: Path) -> None:
    path = write_log("nan", 9, lambda k: {"critic/score/mean": float(k), "actor/entropy": math.nan})
    drawing = drawing_of(read_sources([str(path)]), Look(["reward/mean", "entropy"]))
    assert not drawing.panels[1].lines
    assert "entropy has no finite value in 9 steps" in drawing.caption
    draw(read_sources([str(path)]), Look(["entropy"]), tmp_path / "nan")


def test_names_that_are_markup_are_shown_as_they_stand(write_log: WriteLog, tmp_path: Path) -> None:
    path = write_log("hostile", 9, lambda k: {**verl(k), HOSTILE: k / 9})
    name = next(n for n in read_sources([str(path)])[0].names if "script" in n)
    png, svg = draw(read_sources([f"_$a$<b>={path}"]), Look([name], right=name), tmp_path / "hostile")
    assert b"<script>" not in svg.read_bytes()
    root = ElementTree.parse(svg).getroot()
    assert "<script>" in (root.findtext("{http://www.w3.org/2000/svg}desc") or "")
    with Image.open(png) as picture:
        assert "<script>" in picture.info["Description"]


@pytest.mark.parametrize(("x", "last"), [("tokens", 40_000.0), ("time", 40.0), ("step", 40.0)])
def test_axes_add_up_what_the_log_counts_a_step(write_log: WriteLog, x: str, last: float) -> None:
    drawing = drawing_of(read_sources([str(write_log("run", 40, verl))]), Look(["reward/mean"], x=x))
    assert drawing.panels[0].lines[0].x[-1] == pytest.approx(last)


def test_an_axis_that_is_not_recorded_is_refused_if_it_was_asked_for(write_log: WriteLog) -> None:
    with pytest.raises(ConfigError, match="nothing recorded tells rl flops"):
        drawing_of(read_sources([str(write_log("run", 9, verl))]), Look(x="flops"))


def test_paths_of_one_label_are_seeds_with_a_band_and_settings_are_rows(write_log: WriteLog) -> None:
    words = []
    for i in range(6):
        path = write_log(f"seed{i}", 12, lambda k, i=i: {"critic/score/mean": float(k + i), "actor/entropy": 1.0 / k})
        words.append(f"{'sync = 1' if i < 3 else 'sync = 20'}/GRPO={path}")
    drawing = drawing_of(read_sources(words), Look(["reward/mean", "entropy"]))
    assert [p.title for p in drawing.panels] == ["sync = 1", "sync = 1", "sync = 20", "sync = 20"]
    assert drawing.columns == 2
    curve = drawing.panels[0].lines[0]
    assert isinstance(curve, Curve)
    assert curve.y[0] == 2.0  # mean of 1, 2, 3
    ((_, low, high),) = curve.bands
    assert (low[0], high[0]) == (1.0, 3.0)  # of three seeds the band is the span
    assert "sync = 1: reward/mean, mean of 3 seeds: from 4 to 11" in drawing.caption  # steps 1 to 5 and 8 to 12, plus 1


def test_several_runs_have_no_second_y_axis(write_log: WriteLog) -> None:
    words = [str(write_log(name, 9, verl)) for name in ("a", "b")]
    drawing = drawing_of(read_sources(words), Look(style="reproduce"))
    assert [p.right for p in drawing.panels] == [None, None]
    assert drawing.show_legend


def test_a_second_y_axis_takes_any_metric(write_log: WriteLog) -> None:
    look = Look(["response_length/mean"], right="reward/mean")
    with pytest.raises(ConfigError, match="No run here has a metric"):
        drawing_of(read_sources([str(write_log("run", 9, verl))]), look)
    look = Look(["len/response/mean"], right="reward/mean")
    panel = drawing_of(read_sources([str(write_log("run", 9, verl))]), look).panels[0]
    assert panel.right is not None
    assert (panel.lines[0].marker, panel.right.marker) == ("o", "s")


def test_logarithmic_axes_leave_out_what_has_no_place_and_say_so(write_log: WriteLog, tmp_path: Path) -> None:
    path = write_log("zero", 20, lambda k: {"critic/score/mean": 0.0 if k < 4 else 10.0**-k})
    files = draw(read_sources([str(path)]), Look(["reward/mean"], logs=("x", "y")), tmp_path / "log")
    assert "3 values of 0 or below have no place on the logarithmic axis" in caption(files)


def test_findings_are_numbered_lines_and_told(write_log: WriteLog) -> None:
    sources = read_sources([str(write_log("run", 40, verl))])
    remark = Remark("collapse", "error", "It fell from 2 to 1.", 30, 35, "reward/mean")
    drawing = drawing_of(sources, Look(remarks={"run": [remark]}))
    assert [(e.label, list(e.places), list(e.numbers)) for e in drawing.events] == [("finding", [30.0], [1])]
    assert "Finding 1 (steps 30 to 35): It fell from 2 to 1." in drawing.caption


def test_phases_colour_where_the_first_panel_rises_and_is_flat(write_log: WriteLog) -> None:
    path = write_log("rise", 60, lambda k: {"critic/score/mean": float(min(k, 30)) + random.Random(k).gauss(0, 0.1)})
    drawing = drawing_of(read_sources([str(path)]), Look(["reward/mean"], phases="trend"))
    assert [p.label for p in drawing.panels[0].phases] == ["rising", "flat"]
    assert "phases of reward/mean: rising: steps 1 to 30; flat: steps 31 to 60" in drawing.caption


def test_checkpoints_are_marked_if_asked_for(make_run) -> None:
    store = make_run()
    store.append_event("checkpoint", 40, path="checkpoints/step_000040")
    sources = read_sources([str(store.folder)])
    assert not drawing_of(sources, Look()).events
    assert "Vertical lines, checkpoint: step 40." in drawing_of(sources, Look(events=["checkpoint"])).caption


def test_the_swarm_figure_has_points_a_smooth_curve_and_steps_on_top(make_run, make_row) -> None:
    facts = {"env.parallelism": 8.0, "flops.agents.step": 6e9}
    store = make_run(rows=[make_row(k, **facts) for k in range(70)])
    drawing = drawing_of(read_sources([str(store.folder)]), Look(style="swarm"))
    left, right = drawing.panels
    assert (left.title, right.title, left.x_label) == ("Training Accuracy", "Average Parallelism", "RL FLOPs")
    (line,) = left.lines
    assert isinstance(line, Line)
    assert len(line.raw_x) == 70
    assert line.raw_x[-1] == pytest.approx(70 * 1e10)
    # Ticks lie where each step ended: step 20 after 21 steps of 10 GFLOP.
    assert {name: place for place, name in left.top}["20"] == pytest.approx(21e10)


def test_a_label_of_no_use_and_an_unknown_style_are_refused(write_log: WriteLog) -> None:
    sources = read_sources([str(write_log("run", 9, verl))])
    with pytest.raises(ConfigError, match='Did you mean "swarm"'):
        drawing_of(sources, Look(style="swarn"))
    with pytest.raises(ConfigError, match='Did you mean "sync"'):
        drawing_of(sources, Look(events=["synk"]))


def test_an_empty_or_supervised_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("")
    with pytest.raises(ConfigError):
        read_sources([str(tmp_path / "empty.log")])
    rows = [{"loss": 2.0, "learning_rate": 1e-5, "epoch": k / 9, "step": k, "grad_norm": 1.0} for k in range(9)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows, "global_step": 9}))
    with pytest.raises(ConfigError, match="supervised"):
        read_sources([str(tmp_path / "trainer_state.json")])


@pytest.mark.slow
def test_a_hundred_thousand_steps_are_drawn_in_three_seconds_with_every_spike(write_log: WriteLog) -> None:
    spike = {70_007: 9.0}
    path = write_log("long", 100_000, lambda k: {**verl(k % 97), "critic/score/mean": spike.get(k, math.sin(k / 9e3))})
    started = time.process_time()
    files = chart_files(read_sources([str(path)]), Look(["reward/mean"]), path.with_suffix(".png"))
    assert time.process_time() - started < 3
    assert all(file.stat().st_size < 300_000 for file in files)
    told = caption(files)
    assert "highest 9 at step 70007" in told
    assert re.search(r"Of 100,000 steps the lowest and the highest of each of 500 equal stretches are drawn", told)
