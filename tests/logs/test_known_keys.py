"""The core keys of thirteen frameworks' tables are recognised, all of them, and mean what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from known_keys import KEYS

from ratchet.logs.frameworks.entry import Framework, match
from ratchet.logs.frameworks.table import FRAMEWORKS
from ratchet.logs.names import describe
from ratchet.logs.read import read_log


def test_every_core_key_of_every_framework_means_what_it_should() -> None:
    wrong = {
        f"{framework}: {key}": (found.name if found else None)
        for framework, keys in KEYS.items()
        for key, name in keys.items()
        if (found := match(FRAMEWORKS[framework], key)) is None or found.name != name
    }
    total = sum(map(len, KEYS.values()))
    assert len(KEYS) == 13
    assert f"{100 * (total - len(wrong)) / total:.1f} % of {total} core keys" == f"100.0 % of {total} core keys", wrong


@pytest.mark.parametrize("framework", KEYS)
def test_a_log_with_its_core_keys_is_recognised_as_its_own_and_nothing_in_it_is_unknown(
    framework: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(1, 6):
            file.write(
                json.dumps({"step": step, **{key: step + i / 100 for i, key in enumerate(KEYS[framework])}}) + "\n"
            )
    log = read_log(path)
    assert log.framework.name == framework, log.framework
    assert log.framework.sure
    assert dict(log.unrecognised) == {}
    found = {s.key: s.name for s in (*log.series.values(), *log.evals.values(), *log.also.values())}
    assert {key: found[key] for key in KEYS[framework]} == KEYS[framework]
    for i, key in enumerate(KEYS[framework]):
        series = next(s for s in (*log.series.values(), *log.evals.values(), *log.also.values()) if s.key == key)
        assert series.steps.tolist() == [1, 2, 3, 4, 5]
        assert series.values.tolist() == pytest.approx([step + i / 100 for step in range(1, 6)])


def test_every_canonical_name_has_a_description_with_a_unit_or_a_meaning() -> None:
    names = {name for keys in KEYS.values() for name in keys.values()}
    without = [name for name in sorted(names) if describe(name) is None]
    assert without == []


@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=lambda f: f.name)
def test_every_row_of_every_table_leads_to_a_name_that_is_described(framework: Framework) -> None:
    names = [key.name.replace("{0}", "mean").replace("{1}", "mean") for key in framework.keys]
    assert [name for name in names if not name.startswith(("mean", "{")) and describe(name) is None] == []
