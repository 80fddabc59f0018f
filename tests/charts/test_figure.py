import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from ratchet.charts.canvas import BLUE, RED
from ratchet.charts.figure import draw_metrics, draw_run
from ratchet.core.errors import ConfigError, RunError

SVG = "{http://www.w3.org/2000/svg}"


def test_the_study_figure_is_a_png_an_svg_and_its_caption(make_run) -> None:
    store = make_run()
    png, svg, *_ = draw_run(store)
    assert (png.name, svg.name) == ("judge.png", "judge.svg")
    assert png.parent == store.folder / "figures"
    with Image.open(png) as picture:
        assert picture.width > 2 * picture.height
    assert {BLUE.lower(), RED.lower()} <= {c.lower() for c in svg.read_text().replace(";", " ").split() if c[0] == "#"}


def test_the_caption_is_inside_both_pictures_and_beside_them(make_run) -> None:
    png, svg, *_ = draw_run(make_run())
    caption = png.with_suffix(".txt").read_text().partition("\n\n")[2].strip()
    with Image.open(png) as picture:
        assert picture.info["Description"] == caption
    assert ElementTree.parse(svg).getroot().findtext(f"{SVG}desc") == caption
    assert "judge" in (ElementTree.parse(svg).getroot().findtext(f"{SVG}title") or "")


def test_the_caption_tells_the_numbers_that_are_drawn(make_run, make_row) -> None:
    # Rewards 0 .. 9 over ten steps: means of five are 2 and 7, a rise by 250 %.
    store = make_run(rows=[make_row(k, **{"reward.mean": float(k)}) for k in range(10)])
    caption = draw_run(store)[0].with_suffix(".txt").read_text()
    assert "Train Reward: from 2 to 7 (means of the first and last 5 steps), change 5 (+250.0 %)" in caption
    assert "highest 9 at step 9, lowest 0 at step 0" in caption


def test_the_same_run_gives_the_same_bytes(make_run) -> None:
    store = make_run()
    first = [path.read_bytes() for path in draw_run(store)]
    assert [path.read_bytes() for path in draw_run(store)] == first


def test_one_step_can_be_drawn(make_run) -> None:
    png = draw_run(make_run(steps=1, asked=70))[0]
    assert "1 of 70 steps" in png.with_suffix(".txt").read_text()


def test_a_run_without_a_step_is_refused_with_a_sentence(make_run) -> None:
    with pytest.raises(ConfigError, match="no finished step yet"):
        draw_run(make_run(steps=0))


def test_a_missing_metric_is_said_in_its_panel(make_run, make_row) -> None:
    rows = [{k: v for k, v in make_row(i).items() if k != "len/response/mean"} for i in range(5)]
    png = draw_run(make_run(rows=rows))[0]
    assert "len/response/mean was not recorded" in png.with_suffix(".txt").read_text()


def test_refreshes_and_resumes_are_marked_and_told(make_run, make_row) -> None:
    store = make_run(rows=[make_row(k, **{"stale.max": float(k % 20)}) for k in range(70)])
    store.append_event("resume", 31, checkpoint="step_000030")
    caption = draw_run(store)[0].with_suffix(".txt").read_text()
    assert "sampler refreshed: step 20, 40, 60" in caption
    assert "resumed: step 31" in caption


def test_a_study_without_a_preset_is_named_after_its_environment(make_run) -> None:
    config = {"run": {"study": ""}, "environment": {"name": "mine.py:Guess"}}
    assert draw_run(make_run(steps=3, config=config))[0].name == "Guess.png"


def test_several_runs_share_a_panel_and_the_caption_names_each(make_run) -> None:
    runs = [make_run("first"), make_run("second.5", steps=20)]
    png, svg = draw_metrics(runs, ["entropy", "reward/mean"], "flops", runs[0].folder / "compare.png")
    caption = png.with_suffix(".txt").read_text()
    assert "entropy of first" in caption
    assert "reward/mean of second.5" in caption
    assert svg.name == "compare.svg"


@pytest.mark.parametrize("x", ["step", "rollouts", "tokens", "flops", "time"])
def test_every_axis_can_be_drawn_over(make_run, x: str) -> None:
    store = make_run(steps=4)
    store.append_event("eval", 4, split="test", **{"pass@1": 0.8})
    metrics = ["reward/mean", "eval/test/pass@1"]
    assert all(path.is_file() for path in draw_metrics([store], metrics, x, store.folder / f"by-{x}"))


def test_an_unknown_metric_or_axis_names_the_nearest(make_run) -> None:
    store = make_run(steps=2)
    with pytest.raises(ConfigError, match='Did you mean "reward/mean"'):
        draw_metrics([store], ["reward/maen"], "step", store.folder / "x.png")
    with pytest.raises(ConfigError, match='Did you mean "flops"'):
        draw_metrics([store], ["reward/mean"], "flop", store.folder / "x.png")


def test_a_metric_of_one_run_alone_is_drawn_and_its_lack_told(make_run, make_row) -> None:
    runs = [make_run("with", rows=[make_row(k, **{"kl.ref": 0.1}) for k in range(3)]), make_run("without", steps=3)]
    png, _ = draw_metrics(runs, ["kl/ref"], "step", runs[0].folder / "kl.png")
    assert "kl/ref of without: not recorded." in png.with_suffix(".txt").read_text()


def test_a_place_that_cannot_be_written_is_an_error_a_person_can_read(make_run) -> None:
    store = make_run(steps=2)
    (store.folder / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        draw_metrics([store], ["entropy"], "step", store.folder / "file" / "x.png")


def test_importing_charts_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, ratchet.charts.figure, ratchet.charts.report, ratchet.charts.text, ratchet.core.metric\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_figure_of_reproduce_has_two_y_axes_in_the_colours_of_their_series(make_run) -> None:
    config = {"run": {"study": "reproduce"}, "environment": {"name": "reproduce"}, "algorithm": {"name": "grpo"}}
    store = make_run(config=config, steps=30)
    for step in (10, 20, 30):
        tokens = {"env_testwriter/tokens": 10.0 + step, "part_reproduced": 0.2 + step / 200}
        store.append_event("eval", step, split="test", **tokens)
    png, svg, *_ = draw_run(store)
    caption = png.with_suffix(".txt").read_text()
    assert "Token Length: from 20" in caption
    assert "Reproduced Rate: from 25" in caption  # per cent
    words = svg.read_text()
    assert all(f"<!-- {text} -->" in words for text in ("Token Length", "Reproduced Rate (%)", "RL Training Steps"))
