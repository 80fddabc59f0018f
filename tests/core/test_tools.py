"""Tool calls: every family's form is read, and what cannot be read is told, never raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.tools import FORMATS, LLAMA, ToolCall, ToolSpec, described, format_of, written

CALL = ToolCall("find", {"text": 'a "quoted" ü\nline'})
ARGUMENTS = json.dumps(dict(CALL.arguments))
WRITTEN = {
    "hermes": f'Let me see.\n<tool_call>\n{{"name": "find", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "parameters": f"<tool_call>\n<function=find>\n<parameter=text>\n{CALL.arguments['text']}\n</parameter>\n"
    "</function>\n</tool_call>",
    "keys": f"<tool_call>find\n<arg_key>text</arg_key>\n<arg_value>{CALL.arguments['text']}</arg_value>\n</tool_call>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.find:0<|tool_call_argument_begin|>"
    f"{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n"
    f"```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>",
    "mistral": f'[TOOL_CALLS] [{{"name": "find", "arguments": {ARGUMENTS}}}]',
    "llama": f'{{"name": "find", "parameters": {ARGUMENTS}}}<|eom_id|>',
}
BY_NAME = {f.name: f for f in (*FORMATS, LLAMA)}


@pytest.mark.parametrize("name", WRITTEN)
def test_each_family_s_form_is_read(name: str) -> None:
    assert BY_NAME[name].calls(WRITTEN[name]) == (CALL,)


def test_newer_forms_of_a_family_are_read_too() -> None:
    assert BY_NAME["mistral"].calls(f"[TOOL_CALLS]find[ARGS]{ARGUMENTS}[TOOL_CALLS]find[ARGS]{{}}") == (
        CALL,
        ToolCall("find"),
    )
    v31 = f"<｜tool▁call▁begin｜>find<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>"
    assert BY_NAME["deepseek"].calls(v31) == (CALL,)
    assert BY_NAME["llama"].calls(f"{WRITTEN['llama']}; {WRITTEN['llama']}".replace("<|eom_id|>", "")) == (CALL, CALL)
    inner = json.dumps({"name": "find", "arguments": ARGUMENTS})
    assert BY_NAME["hermes"].calls(f"<tool_call>{inner}</tool_call>") == (CALL,)


def test_several_calls_come_in_their_order() -> None:
    answer = written("a", {"x": "1"}) + " and " + written("b", {})
    assert BY_NAME["hermes"].calls(answer) == (ToolCall("a", {"x": "1"}), ToolCall("b"))


@pytest.mark.parametrize("name", [n for n in WRITTEN if n != "llama"])
def test_a_call_that_is_cut_off_is_told(name: str) -> None:
    whole = WRITTEN[name]
    (call,) = BY_NAME[name].calls(whole[: whole.index(BY_NAME[name].marker) + len(BY_NAME[name].marker) + 3])
    assert call.error


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("nonsense", "no JSON"),
        ("[1]", 'no "name"'),
        ('{"arguments": {}}', 'no "name"'),
        ('{"name": 3}', 'no "name"'),
        ('{"name": "f", "arguments": [1]}', "no JSON object"),
        ('{"name": "f", "arguments": "{"}', "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_malformed_call_says_why(body: str, why: str) -> None:
    (call,) = BY_NAME["hermes"].calls(f"<tool_call>{body}</tool_call>")
    assert why in call.error


def test_an_answer_without_a_call_has_none() -> None:
    for form in (*FORMATS, LLAMA):
        assert form.calls("The answer is 7.") == ()


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("{{ '<tool_call>\\n<function=' }}", "parameters"),
        ("{{ '<tool_call>' + '<arg_key>' }}", "keys"),
        ("<|tool_call_begin|>", "kimi"),
        ("<｜tool▁call▁begin｜>", "deepseek"),
        ("[TOOL_CALLS]", "mistral"),
        ('"<|python_tag|>"', "llama"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "hermes"),
    ],
)
def test_the_format_is_told_by_the_chat_template(template: str, name: str) -> None:
    assert format_of(template).name == name


@given(st.text(), st.sampled_from([f.marker for f in FORMATS] + ["{", "</tool_call>", "[ARGS]"]), st.text())
def test_no_text_makes_reading_fail(before: str, marker: str, after: str) -> None:
    for form in (*FORMATS, LLAMA):
        assert all(call.error or call.name is not None for call in form.calls(before + marker + after))


def test_a_thousand_openings_are_read_in_linear_time() -> None:
    assert len(BY_NAME["hermes"].calls("<tool_call>" * 200_000)) == 1
    assert len(BY_NAME["hermes"].calls(written("f", {}) * 1000)) == 1000


def test_tools_are_described_in_the_form_the_api_takes() -> None:
    tool = ToolSpec("find", "Looks for text.", {"text": "what to look for"})
    assert tool.as_json()["function"]["parameters"]["required"] == ["text"]
    assert '"find"' in described([tool])
