"""The page of rules is the table of rules, and what remedies name exists."""

from __future__ import annotations

from pathlib import Path

from ratchet.config.schema import RunConfig
from ratchet.doctor.options import NAMES, Option
from ratchet.doctor.table import RULES, table_markdown
from ratchet.logs.frameworks.table import FRAMEWORKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_table_of_the_code() -> None:
    assert table_markdown() in (DOCS / "how-to" / "doctor.md").read_text(encoding="utf-8")


def test_every_rule_is_named_after_its_function_and_says_what_it_finds() -> None:
    assert [rule.name for rule in RULES] == [rule.look.__name__ for rule in RULES]  # type: ignore[attr-defined]
    assert all(rule.look.__doc__ and rule.says for rule in RULES)


def test_remedies_for_our_runs_name_settings_that_exist() -> None:
    for names in NAMES["ratchet"].values():
        for name in names.split(", "):
            section, field = name.split(".")
            kind = RunConfig.model_fields[section].annotation
            assert kind is not None
            known = set(kind.model_fields)  # type: ignore[attr-defined]
            assert field in known or (section == "algorithm" and field.startswith("clip_")), name


def test_frameworks_with_options_are_those_that_logs_are_read_of() -> None:
    assert set(NAMES) <= set(FRAMEWORKS)
    assert all(Option.LR in names for names in NAMES.values())
