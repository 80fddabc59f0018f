"""Search in all rollouts: what is found, and that the index follows what is on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import MakeRun, made_group
from starlette.testclient import TestClient

from ratchet.board.index import FILE, Index, Query, phrase
from ratchet.store.run_store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore.create(tmp_path / "run", {"environment": {"name": "judge"}}, {}, {})
    for step in range(3):
        texts = [f"the cat sat at step {step}", 'a dog barked; it\'s "quoted" and 1+1=2', "größe naïve"]
        made.write_groups(step, [made_group(step, step, texts, [1.0, 0.5, 0.0], prompt="which animal is it")])
    return made


def found(index: Index, words: str, **more: object) -> list[tuple[int, int]]:
    return [(hit["step"], hit["attempt"]) for hit in index.search(Query(words, **more))["hits"]]


def test_words_phrases_beginnings_and_accents_are_found_newest_first(store: RunStore) -> None:
    index = Index(store)
    assert index.build()
    assert index.progress() == (3, 3)
    assert found(index, "cat sat") == [(2, 0), (1, 0), (0, 0)]
    assert found(index, '"cat sat at step 1"') == [(1, 0)]
    assert found(index, '"sat cat"') == []
    assert found(index, "bark*") == [(2, 1), (1, 1), (0, 1)]
    assert found(index, "bark") == []
    assert found(index, "grosse naive") == []
    assert found(index, "GRÖSSE") == []
    assert found(index, "naive") == [(2, 2), (1, 2), (0, 2)]
    assert found(index, "animal") == [(2, 0), (1, 0), (0, 0)]
    assert found(index, "helper") == []
    assert found(index, "agent dog") == [(2, 1), (1, 1), (0, 1)]


def test_hits_are_narrowed_by_reward_status_and_step(store: RunStore) -> None:
    index = Index(store)
    index.build()
    assert found(index, "step", low=0.9) == [(2, 0), (1, 0), (0, 0)]
    assert found(index, "", low=0.4, high=0.6, first=1) == [(2, 1), (1, 1)]
    assert found(index, "", status="reward_timeout") == []
    assert index.search(Query("the"))["count"] == 3


@pytest.mark.parametrize(
    "words", ['"', "AND OR NOT", "a*b(", "x:y", "^near/3", "-", "'; DROP TABLE rollouts; --", '""""', "\x00"]
)
def test_no_words_are_an_operator_of_the_search(store: RunStore, words: str) -> None:
    index = Index(store)
    index.build()
    index.search(Query(words))
    assert len(found(index, "cat")) == 3


def test_quoted_words_stay_together() -> None:
    assert phrase('"a b" c d* *') == '"a b" "c" "d*" *'
    assert phrase("  ") == ""
    assert phrase("- +") == ""


def test_a_step_that_was_sampled_again_replaces_its_old_texts(store: RunStore) -> None:
    index = Index(store)
    index.build()
    store.write_groups(1, [made_group(1, 1, ["a parrot"], [0.0])])
    os.utime(store.groups_path(1), ns=(1, 1))
    assert index.build()
    assert found(index, "parrot") == [(1, 0)]
    assert found(index, "cat") == [(2, 0), (0, 0)]


def test_a_damaged_step_is_passed_over_and_indexed_once_it_is_whole(store: RunStore) -> None:
    whole = store.groups_path(2).read_bytes()
    store.groups_path(2).write_bytes(whole[: len(whole) // 2])
    index = Index(store)
    assert index.build()
    assert found(index, "cat") == [(1, 0), (0, 0)]
    store.groups_path(2).write_bytes(whole)
    index.build()
    assert found(index, "cat") == [(2, 0), (1, 0), (0, 0)]


def test_building_stops_when_its_time_is_up_and_goes_on_later(store: RunStore) -> None:
    index = Index(store)
    assert not index.build(within_s=-1.0)
    assert index.progress() == (0, 3)
    assert index.build()
    assert Index(store).build(within_s=-1.0)


def test_the_same_prompt_is_found_over_the_steps(
    make_run: MakeRun, client: TestClient, id_of: Callable[[str], str]
) -> None:
    store = make_run("one", 12)
    task = store.read_groups(11)[1].task.id
    answer = client.get(f"/api/runs/{id_of('one')}/tasks/{task}").json()
    assert [(a["step"], a["attempt"]) for a in answer["attempts"]] == [(s, a) for s in (10, 11) for a in range(4)]
    assert answer["indexed"] == [2, 2]
    assert (store.folder / FILE).is_file()
