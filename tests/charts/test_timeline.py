"""Timelines of attempts: where turns stand, which chain is critical, and that a stranger's text stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders import group, rollout, turn

from ratchet.charts.timeline import draw_timeline, timeline_of, write_page
from ratchet.core.rollout import Group, Rollout, Trajectory


def agent(parent: int, parent_turn: int, *spans: tuple[float, float], outcome: str = "finished") -> Trajectory:
    turns = tuple(replace(turn([1], [2, 3]), began=a, seconds=b - a, text="<b>done</b>") for a, b in spans)
    return Trajectory(turns, "r", trainable=False, parent=parent, parent_turn=parent_turn, outcome=outcome)


def attempt() -> tuple[Group, Rollout]:
    """The policy's turn 0 launches two agents, the second of which launches one; turn 1 is the answer."""
    root = tuple(replace(turn([1], [2]), began=a, seconds=1.0, text="</pre><script>x</script>") for a in (0.0, 9.0))
    made = replace(
        rollout(1.0),
        trajectories=(
            Trajectory(root),
            agent(0, 0, (1.0, 2.0), (2.0, 4.0)),
            agent(0, 0, (1.0, 3.0), (6.0, 8.0), outcome="turns"),
            agent(2, 0, (3.0, 5.0)),
        ),
    )
    return group([made], index=4, step=2), made


def critical(clock: str) -> set[tuple[int, float]]:
    made = timeline_of(*attempt(), clock)  # type: ignore[arg-type]
    return {(bar.lane, bar.begin) for bar in made.bars if bar.critical}


def test_the_critical_path_goes_through_the_agent_that_ended_last_at_every_level() -> None:
    assert critical("seconds") == {(0, 0.0), (2, 1.0), (3, 3.0), (2, 6.0), (0, 9.0)}


def test_in_steps_every_turn_takes_one_and_waits_for_what_was_launched() -> None:
    # 0: policy; 1: both agents; 2: the agent below, and a second turn; 3: the other second turn; 4: policy
    assert critical("steps") == {(0, 0.0), (2, 1.0), (3, 2.0), (2, 3.0), (0, 4.0)}
    made = timeline_of(*attempt(), "steps")
    assert [(bar.lane, bar.begin) for bar in made.bars if bar.lane == 1] == [(1, 1.0), (1, 2.0)]
    assert "5 of 7 turns" in made.caption
    assert "2 tasks" not in made.caption
    assert "3 tasks in all (2 finished, 1 turns)" in made.caption


def test_it_is_written_as_pictures_and_a_page_on_which_text_is_only_text(tmp_path: Path) -> None:
    made = timeline_of(*attempt(), "seconds")
    pictures = draw_timeline(made, tmp_path / "line")
    page = write_page(made, pictures, tmp_path / "line.html").read_text()
    assert {p.suffix for p in pictures} == {".png", ".svg"}
    assert made.caption in (tmp_path / "line.txt").read_text()
    assert "<script>" not in page
    assert "&lt;/pre&gt;&lt;script&gt;" in page
    assert page.count("<details") == 4
    assert "http" not in page.replace("http-equiv", "")


def test_an_attempt_without_agents_is_one_lane() -> None:
    made = rollout(0.0, turn([1], [2]))
    line = timeline_of(group([made]), made, "steps")
    assert len(line.lanes) == 1
    assert line.caption == "1 turns of the policy; it launched no agent."
