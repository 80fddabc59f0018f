"""What the page is told about runs and logs, read while they grow, are damaged, or are somebody else's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from boards import HOSTILE, MakeRun, row
from starlette.testclient import TestClient

from ratchet.board.board import Board
from ratchet.board.finding import Finding, Reason
from ratchet.board.server import make_app
from ratchet.board.state import State, state_of

IdOf = Callable[[str], str]


def test_the_list_says_of_each_run_what_it_is_and_how_far(make_run: MakeRun, client: TestClient) -> None:
    make_run("one", 12)
    make_run("sweep/two", 5, seed=1, algorithm="reinforce", state="stopped")
    listed = client.get("/api/runs").json()
    runs = {run["name"]: run for run in listed["runs"]}
    assert sorted(runs) == ["one", "sweep/two"]
    one, two = runs["one"], runs["sweep/two"]
    assert (one["study"], one["algorithm"], one["seed"], one["state"]) == ("judge", "GRPO", 0, "finished")
    assert (one["step"], one["steps"], one["reward"]) == (12, 40, pytest.approx(0.32))
    assert one["spark"]["y"][0] == pytest.approx(0.1)
    assert (two["algorithm"], two["state"]) == ("REINFORCE", "stopped")
    assert {"run.seed", "algorithm.name"} <= set(listed["keys"])
    assert two["settings"]["algorithm.name"] == "reinforce"


def test_runs_of_other_frameworks_stand_beside_ours_and_what_is_no_log_is_told(
    make_run: MakeRun, folder: Path, client: TestClient
) -> None:
    make_run("one")
    rows = [{"step": k, "loss": 0.1, "reward": k / 10, "reward_std": 0.1, "kl": 0.0} for k in range(1, 20)]
    (folder / "trl").mkdir()
    state = {"global_step": 19, "log_history": rows}
    (folder / "trl" / "trainer_state.json").write_text(json.dumps(state))
    (folder / "shopping.csv").write_text("what,much\nbread,2\nmilk,1\n")
    listed = client.get("/api/runs").json()
    log = next(run for run in listed["runs"] if run["name"] == "trl")
    assert (log["kind"], log["framework"], log["state"]) == ("log", "TRL or Unsloth", "recorded")
    assert [file["name"] for file in listed["refused"]] == ["shopping.csv"]
    page = client.get(f"/api/runs/{log['id']}").json()
    assert page["figure"][1]["metric"] == "reward/mean"
    series = client.get(f"/api/runs/{log['id']}/series", params={"m": "reward/mean"}).json()
    assert series[0]["y"][-1] == pytest.approx(1.9)
    assert client.get(f"/api/runs/{log['id']}/ledger").status_code == 404


@pytest.mark.parametrize(
    ("status", "silent_s", "state"),
    [
        ({"state": "running", "pid": os.getpid(), "waiting": {}}, 1, State.RUNNING),
        ({"state": "running", "pid": os.getpid(), "waiting": {}}, 3600, State.STALLED),
        ({"state": "running", "pid": 2**22 + 7, "waiting": {}}, 1, State.CRASHED),
        (
            {"state": "running", "pid": os.getpid(), "waiting": {"trainer": {"for": "pause", "since": 1.0}}},
            1,
            State.PAUSED,
        ),
        ({"state": "finished"}, 1, State.FINISHED),
        ({"state": "stopped"}, 1, State.STOPPED),
        ({"state": "failed", "error": "no"}, 1, State.CRASHED),
        ({}, 1, State.STOPPED),
    ],
)
def test_a_state_follows_from_the_status_the_process_and_the_silence(
    status: dict[str, object], silent_s: float, state: State
) -> None:
    now = time.time()
    assert state_of(status, now - silent_s, 2.0, now=now).state is state


def test_a_stalled_run_says_what_it_waits_for() -> None:
    waiting = {"trainer": {"for": "groups", "since": 1.0}}
    now = state_of({"state": "running", "pid": os.getpid(), "waiting": waiting}, time.time() - 9000, 1.0)
    assert now.state is State.STALLED
    assert "trainer waits for groups" in now.detail
    assert "150 min" in now.detail


def test_what_one_page_has_seen_the_others_still_hear_of(make_run: MakeRun, board: Board) -> None:
    store = make_run("one", 3, state="stopped")
    (id_,) = board.library.news(force=True)
    store.append_metrics(row(3, 0.9))
    assert board.run(id_)["step"] == 4
    assert board.changes() == [id_]
    assert board.changes() == []


def test_a_run_is_read_while_it_is_written(make_run: MakeRun, board: Board) -> None:
    store = make_run("one", 3, state="stopped")
    (id_,) = board.library.news(force=True)
    assert board.library.news(force=True) == []
    with (store.folder / "metrics.jsonl").open("ab") as file:
        file.write(json.dumps(row(3, 0.9)).encode()[:20])
    board.library.refresh(force=True)
    assert board.series(id_, ["reward/mean"])[0]["points"] == 3
    store.append_metrics(row(3, 0.9))  # the store cuts off the half line first
    assert board.library.news(force=True) == [id_]
    assert board.series(id_, ["reward/mean"])[0]["y"][-1] == 0.9


def test_a_damaged_run_is_listed_as_damaged_and_harms_no_other(
    make_run: MakeRun, folder: Path, client: TestClient, id_of: IdOf
) -> None:
    make_run("good")
    bad, mean = make_run("bad"), make_run("mean")
    (bad.folder / "config.toml").write_bytes(b"\xff = [")
    (mean.folder / "metrics.jsonl").write_bytes(
        b'{"step": 0, "reward/mean": 1.0}\n\x00\x00garbage\n[]\n{"step": "x"}\n'
    )
    (mean.folder / "status.json").write_text("{")
    (mean.folder / "rollouts" / "step_000011.jsonl.gz").write_bytes(b"not gzip")
    runs = {run["name"]: run for run in client.get("/api/runs").json()["runs"]}
    assert (runs["good"]["state"], runs["bad"]["state"]) == ("finished", "damaged")
    assert "config.toml" in runs["bad"]["detail"]
    page = client.get(f"/api/runs/{runs['mean']['id']}").json()
    assert page["unreadable"] == 2
    answer = client.get(f"/api/runs/{runs['mean']['id']}/steps/11")
    assert (answer.status_code, "damaged" in answer.json()["error"]) == (404, True)
    for run in runs.values():
        assert client.get(f"/api/runs/{run['id']}").status_code == 200
        assert client.get(f"/api/runs/{run['id']}/search").status_code == 200


def test_a_page_has_the_studys_figure_and_the_dictionary(make_run: MakeRun, client: TestClient, id_of: IdOf) -> None:
    make_run("one")
    page = client.get(f"/api/runs/{id_of('one')}").json()
    assert [panel["title"] for panel in page["figure"]] == ["Response Length vs Step", "Train Reward vs Step"]
    titles = [section["title"] for section in page["sections"]]
    assert titles[0] == "Reward"
    assert titles[-1] == "Evaluation"
    reward = page["sections"][0]["metrics"][0]
    assert (reward["name"], reward["better"]) == ("reward/mean", "higher is better")
    assert "Mean reward" in reward["meaning"]
    assert page["settings"]["algorithm.lr"] == "0.001"


def test_axes_count_up_and_evaluations_stand_where_their_step_ended(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    make_run("one", 12)
    ask = f"/api/runs/{id_of('one')}/series"
    assert client.get(ask, params={"m": "reward/mean", "x": "tokens"}).json()[0]["x"] == [
        100.0 * k for k in range(1, 13)
    ]
    assert client.get(ask, params={"m": "reward/mean", "x": "time"}).json()[0]["x"][0] == pytest.approx(2 / 60)
    evaluated = client.get(ask, params={"m": "eval/test/reward_mean", "x": "tokens"}).json()[0]
    assert (evaluated["x"], evaluated["y"]) == ([1200.0], [0.5])


def test_a_zoomed_curve_is_thinned_within_its_bounds(make_run: MakeRun, client: TestClient, id_of: IdOf) -> None:
    make_run("one", 40)
    ask = {"m": "reward/mean", "from": "10", "to": "20"}
    series = client.get(f"/api/runs/{id_of('one')}/series", params=ask).json()[0]
    assert (series["x"][0], series["x"][-1]) == (9.0, 21.0)


@pytest.mark.parametrize(
    "bad",
    [{"x": "miles"}, {"points": "1"}, {"points": "a"}, {"smooth": "much"}, {"from": "here"}, {"points": "9" * 30}],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(
    make_run: MakeRun, client: TestClient, id_of: IdOf, bad: dict[str, str]
) -> None:
    make_run("one")
    answer = client.get(f"/api/runs/{id_of('one')}/series", params={"m": "reward/mean", **bad})
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(".")


def test_the_ledger_adds_up_and_says_against_what(make_run: MakeRun, client: TestClient, id_of: IdOf) -> None:
    make_run("one", 10)
    found = client.get(f"/api/runs/{id_of('one')}/ledger").json()
    attempts = found["books"][0]
    assert (attempts["total"], attempts["asked"], attempts["against"]) == (40.0, 40.0, "rollouts/asked")
    assert [(f["fate"], f["count"]) for f in attempts["fates"]] == [("trained", 30.0), ("reward_timeout", 10.0)]
    assert found["time"]["waits"] == [{"name": "wait/trainer_for_groups", "seconds": 10.0}]


def test_groups_come_widest_spread_first_and_an_attempt_comes_with_its_tokens(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    make_run("one", 12)
    at = f"/api/runs/{id_of('one')}/steps"
    assert client.get(at).json() == {"steps": [10, 11], "kept": True}
    groups = client.get(f"{at}/11").json()
    assert [(g["index"], g["spread"]) for g in groups] == [(0, 1.0), (1, 0.0)]
    assert groups[0]["rewards"] == [1.0, 0.25, 0.0, None]
    group = client.get(f"{at}/11/0").json()
    assert [a["attempt"] for a in group["attempts"]] == [0, 1, 2, 3]
    one = client.get(f"{at}/11/0/2").json()
    policy = one["trajectories"][0]
    assert policy["turns"][0]["text"] == HOSTILE
    assert policy["turns"][0]["logprobs"][0] == -0.5
    assert (one["agents"], one["trajectories"][1]["agent"]) == (1, "helper")
    assert len(one["timeline"]["bars"]) == 2
    assert one["advantage"] == pytest.approx((0.0 - 1.25 / 3) / 0.424918, rel=1e-4)
    assert client.get(f"{at}/11/0/9").status_code == 404
    assert client.get(f"{at}/99").status_code == 404


def test_tokens_say_how_far_the_trainer_was_from_the_sampler_or_why_that_is_not_known(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    store = make_run("one", 12)
    at = f"/api/runs/{id_of('one')}/steps/11/0"
    assert client.get(f"{at}/0").json()["differences"] == "none"
    tokens = store.read_groups(11)[1].rollouts[0].output_tokens
    values = np.array([0.25, -0.5] + [0.0] * (tokens - 2), dtype=np.float16)
    untrained = np.full(store.read_groups(11)[1].rollouts[1].output_tokens, np.nan, dtype=np.float16)
    store.write_differences(11, {(11, 0, 0): values, (11, 0, 1): untrained})
    one = client.get(f"{at}/0").json()
    policy, helper = one["trajectories"]
    assert (one["differences"], policy["turns"][0]["differences"]) == ("some", values.tolist())
    assert helper["turns"][0]["differences"] == []  # a frozen agent's tokens are nobody's to train
    for attempt in (1, 2):
        assert client.get(f"{at}/{attempt}").json()["differences"] == "untrained"
    (store.folder / "rollouts" / "differences_000011.jsonl.gz").write_bytes(b"not gzip")
    answer = client.get(f"{at}/0")
    assert (answer.status_code, "damaged" in answer.json()["error"]) == (404, True)


def test_seeds_of_one_method_are_pooled_and_differences_are_told(
    make_run: MakeRun, client: TestClient, id_of: IdOf
) -> None:
    for seed in (0, 1):
        make_run(f"a{seed}", 10 + seed, seed=seed)
    make_run("b", 10, lr=1e-2)
    ids = [id_of(name) for name in ("a0", "a1", "b")]
    found = client.get("/api/compare", params={"run": ids, "m": ["reward/mean"], "seeds": "mean"}).json()
    lines = {tuple(sorted(line["ids"])): line for line in found["charts"][0]["lines"]}
    pooled = lines[tuple(sorted(ids[:2]))]
    assert (pooled["seeds"], len(pooled["x"])) == (2, 11)
    assert pooled["low"][0] <= pooled["y"][0] <= pooled["high"][0]
    assert {row["key"] for row in found["differences"]} >= {"algorithm.lr", "run.seed"}
    assert {axis["key"] for axis in found["coordinates"]["settings"]} >= {"algorithm.lr"}
    single = client.get("/api/compare", params={"run": ids, "m": ["reward/mean"]}).json()
    assert [line["label"] for line in single["charts"][0]["lines"]] == ids


def test_findings_that_are_handed_in_are_shown_worst_first(make_run: MakeRun, folder: Path) -> None:
    make_run("one")
    asked: list[Path] = []

    def diagnose(path: Path) -> Sequence[Finding]:
        asked.append(path)
        return [
            Finding("info", "b", "entropy", 0, 1, "It is calm."),
            Finding("error", "z", "reward/mean", 3, 9, "It fell.", (Reason("the rate", ("kl/ref rose",)),)),
            Finding("error", "a", "len/response/mean", 0, 9, "Answers got shorter."),
        ]

    board = Board(folder, diagnose)
    client = TestClient(make_app(board), base_url="http://localhost")
    id_ = client.get("/api/runs").json()["runs"][0]["id"]
    board.diagnosis.wait(id_, board.library.get(id_))
    page = client.get(f"/api/runs/{id_}").json()
    # Worst first; among equals as the diagnosis has them, and not by step or name.
    assert [f["rule"] for f in page["findings"]] == ["z", "a", "b"]
    assert page["findings"][0]["causes"][0]["evidence"] == ["kl/ref rose"]
    listed = client.get("/api/runs").json()["runs"][0]
    assert (listed["finding"]["sentence"], listed["num_findings"]) == ("It fell.", 3)
    assert asked == [folder / "one"]
    assert board.diagnosis.news() == [id_]  # so that open pages hear of it
    assert board.diagnosis.news() == []
    board.close()


def test_tags_are_kept_beside_the_runs(make_run: MakeRun, folder: Path, client: TestClient, id_of: IdOf) -> None:
    make_run("one")
    id_ = id_of("one")
    headers = {"origin": "http://localhost", "x-ratchet": "board"}
    told = client.post(f"/api/runs/{id_}/tags", json={"tags": [" good  one ", "good one", ""]}, headers=headers)
    assert told.json() == {"tags": ["good one"]}
    assert Board(folder).tags.of(id_) == ["good one"]
    assert client.post(f"/api/runs/{id_}/tags", json={"tags": ["x" * 99]}, headers=headers).status_code == 404
