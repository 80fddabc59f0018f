"""Reports of any run: one page that opens offline, hostile texts, comparisons."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ratchet.charts.document import Document, Quote, Section, Text, code, markdown, plain
from ratchet.charts.figure import draw_run
from ratchet.charts.page import page
from ratchet.charts.remark import Remark
from ratchet.charts.report import of_one, report, write_report
from ratchet.charts.source import Source, read_sources
from ratchet.charts.versus import comparison
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Task

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>```\n# heading\n**bold** | cell"
SECTIONS = (
    "Overview",
    "Components",
    "Detailed analysis",
    "Key observations",
    "Interpretation",
    "Findings",
    "Ledger: where every prompt and token went",
    "Waiting and time",
    "To repeat it",
)


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def seen(path: Path) -> Seen:
    found = Seen()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def compared(sources: Sequence[Source], remarks: Mapping[str, Sequence[Remark]]) -> str:
    return markdown(Document("", [], [comparison(sources, remarks)]), Path())


def write_log(path: Path, rows: list[dict[str, float]]) -> str:
    path.write_text("".join(json.dumps({"step": k, "data": row}) + "\n" for k, row in enumerate(rows, start=1)))
    return str(path)


def fallen(k: int) -> dict[str, float]:
    """Return a step of a run that learns, and from step 61 on loses half of its reward while answers grow."""
    noise = random.Random(k)
    return {
        "critic/score/mean": min(1.0, k / 30) - (0.5 if k > 60 else 0.0) + noise.gauss(0, 0.01),
        "response_length/mean": 500.0 + (8.0 * (k - 60) if k > 60 else 0.0) + noise.gauss(0, 2),
        "actor/entropy": 0.5 - (0.3 if k > 50 else 0.0) + noise.gauss(0, 0.01),
    }


def steady(k: int) -> dict[str, float]:
    noise = random.Random(1000 + k)
    return fallen(min(k, 40)) | {
        "critic/score/mean": min(1.0, k / 30) + noise.gauss(0, 0.01),
        "response_length/mean": 500.0 + noise.gauss(0, 2),
        "actor/entropy": 0.5 + noise.gauss(0, 0.01),
    }


def test_a_run_of_ours_has_every_section_in_one_page_that_asks_for_nothing(make_run) -> None:
    store = make_run()
    store.append_event("finished", 70, seconds=105.0)
    write_report(store, draw_run(store))
    found = seen(store.folder / "report.html")
    text = (store.folder / "report.md").read_text(encoding="utf-8")
    for title in SECTIONS:
        assert f"## {title}" in text
        assert title in found.texts
    assert all(a.startswith(("data:image/", "#")) for a in found.addresses)
    assert "script" not in found.tags
    assert found.tags.count("img") == 2


def test_sentences_name_metric_and_steps(make_run) -> None:
    store = make_run()
    text = write_report(store, []).read_text(encoding="utf-8")
    observed = text.partition("## Key observations")[2].partition("## Findings")[0]
    sentences = [line for line in observed.splitlines() if line.startswith("- ")]
    assert len(sentences) >= 4
    assert all("`" in s and "step" in s for s in sentences)


def test_noise_is_called_noise_and_a_rise_is_told_with_its_standard_errors(make_run) -> None:
    text = write_report(make_run(), []).read_text(encoding="utf-8")
    assert "`entropy` goes from" in text
    entropy = next(line for line in text.splitlines() if line.startswith("`entropy` goes from"))
    assert "inside the noise" in entropy
    reward = next(line for line in text.splitlines() if line.startswith("`reward/mean` goes from"))
    assert "three standard errors" in reward
    assert "inside the noise" not in reward
    assert "It learned: `reward/mean` rose by more than its noise over steps 0 to 69" in text


def test_a_log_of_another_framework_is_reported_with_what_is_not_known(tmp_path: Path) -> None:
    word = write_log(tmp_path / "verl.jsonl", [fallen(k) for k in range(1, 81)])
    remark = Remark("reward collapse", "error", "It fell.", 61, 80, "reward/mean", ("Cause: none known.",))
    sources = read_sources([word])
    text = markdown(of_one(sources[0], [], [remark]), tmp_path)
    for title in SECTIONS:
        assert f"## {title}" in text
    assert "written by | verl" in text
    assert "**`reward/mean` fell back**" in text
    assert "**They part** over steps" in text
    assert "`len/response/mean` rises while `reward/mean` falls" in text
    assert "**reward collapse**, error (`reward/mean`, steps 61 to 80): It fell." in text
    assert "The log counts no prompts, rollouts or tokens" in text


def test_what_a_model_wrote_cannot_become_markup(make_run) -> None:
    store = make_run()
    tokens, sure = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)
    turn = Turn(tokens, tokens, sure, sure, 0, 0, "f", StopReason.END, HOSTILE, 0.0)
    task = Task("judge", (Message("user", HOSTILE),), HOSTILE)
    attempt = Rollout(task.id, 0, (Trajectory((turn,)),), Status.OK, Score(1.0))
    store.write_groups(0, [Group(task, 0, 0, (attempt,))])
    store.append_event("crashed", 69, error=HOSTILE)
    remark = Remark(HOSTILE, "error", HOSTILE, 3, 4, HOSTILE, (HOSTILE,))
    text = write_report(store, [], [remark]).read_text(encoding="utf-8")
    found = seen(store.folder / "report.html")
    assert not {"script", "b"} & set(found.tags)
    assert all(a.startswith(("data:image/", "#")) for a in found.addresses)
    assert found.handlers == []
    assert any("<script>alert(1)</script>" in t for t in found.texts)
    assert "\n# heading\n" not in text.replace(text[text.index("````") : text.rindex("````")], "")


def test_marks_of_others_end_neither_code_nor_bold_nor_a_fence() -> None:
    document = Document(
        "t", [Text(f"{code('a`b|c')} and {plain('x**y`z')}")], [Section("s", [Quote("```\n````\nend")])]
    )
    text = markdown(document, Path())
    assert "`a'b¦c` and x* *y'z" in text
    assert "\n`````\n```\n````\nend\n`````" in text
    assert "<strong>" not in page(document).partition("<main>")[2]
    assert "<strong>b</strong> <code>c</code>" in page(Document("t", [Text("**b** `c`")], []))


def test_one_step_and_a_reward_that_is_never_finite_have_reports(tmp_path: Path) -> None:
    one = write_log(tmp_path / "one.jsonl", [fallen(1)])
    text = markdown(of_one(read_sources([one])[0], [], []), tmp_path)
    assert "too few to tell learning from noise" in text
    never = write_log(tmp_path / "nan.jsonl", [{"critic/score/mean": math.nan, "actor/entropy": 0.5}] * 12)
    text = report(read_sources([never]), tmp_path / "nan")[0].read_text(encoding="utf-8")
    assert "Without a finite reward nothing can be said about learning." in text
    assert "None of its 12 values is finite." in text


def test_a_comparison_ranks_with_intervals_says_where_curves_part_and_why(tmp_path: Path) -> None:
    bad = write_log(tmp_path / "bad.jsonl", [fallen(k) for k in range(1, 81)])
    good = write_log(tmp_path / "good.jsonl", [steady(k) for k in range(1, 81)])
    finding = Remark("entropy collapse", "warning", "Entropy fell to 40 %.", 51, 60, "entropy")
    mild = Remark("healthy growth", "info", "It grew.", 60, 61, "reward/mean")
    sources = read_sources([bad, good])
    text = compared(sources, {"bad": [mild, finding], "good": []})
    assert "| 1 | good | `reward/mean` | 1 | 0.99" in text or "| 1 | good | `reward/mean` | 1 | 1.0" in text
    assert "the intervals do not touch" in text
    assert "good and bad part at step" in text
    step = int(text.partition("good and bad part at step ")[2].split()[0])
    assert 57 <= step <= 62
    assert "The finding nearest to that: **entropy collapse** in bad, steps 51 to 60: Entropy fell to 40 %." in text
    assert "One run each: another seed may end elsewhere" in text
    assert "`entropy` parted before the reward, at step" in compared(sources, {})


def test_runs_of_ours_that_differ_in_the_seed_alone_are_told_so_and_alike_ones_are_noise(make_run, make_row) -> None:
    one = make_run("one")
    other = make_run(
        "other", rows=[make_row(k) | {"reward/mean": make_row(k)["reward/mean"] + 1e-6} for k in range(70)]
    )
    (one.folder / "config.toml").write_text((one.folder / "config.toml").read_text().replace("seed = 3", "seed = 4"))
    text = compared(read_sources([str(one.folder), str(other.folder)]), {})
    assert "Their configs differ in the seed alone." in text
    assert "the intervals overlap, so the order is **inside the noise**" in text
    assert "do not part in `reward/mean`" in text


def test_seeds_of_one_label_have_an_interval_over_seeds(tmp_path: Path) -> None:
    words = []
    for i in range(3):
        rows = [{"critic/score/mean": i / 10 + random.Random(100 * i + k).gauss(0, 1e-4)} for k in range(20)]
        words.append(f"same={write_log(tmp_path / f'{i}.jsonl', rows)}")
    text = compared(read_sources(words), {})
    found = re.search(r"\| 1 \| same \| `reward/mean` \| 3 \| (\S+) \((\S+) to (\S+)\)", text)
    assert found is not None
    assert [float(n) for n in found.groups()] == pytest.approx([0.1, 0.0, 0.2], abs=1e-3)


def test_two_logs_make_one_page_with_a_comparison_and_a_report_of_each(tmp_path: Path) -> None:
    words = [
        write_log(tmp_path / f"{name}.jsonl", [{"critic/score/mean": k / 9} for k in range(9)]) for name in ("a", "b")
    ]
    files = report(read_sources(words), tmp_path / "out")
    text = files[0].read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Comparison",
        "## All in one figure",
        "## a",
        "## b",
    ]
    assert text.count("### Key observations") == 2
    assert all((tmp_path / "out" / "figures" / f"{name}.png").is_file() for name in ("comparison", "a-main", "b-main"))
    assert "Their" not in text.partition("## All")[0]
