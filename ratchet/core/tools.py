"""Tools a policy may call: how they are described, and how calls stand in its answers. Pure text.

Every family of models writes calls in its own form, told by markers in its chat template:

    hermes      <tool_call>{"name": ..., "arguments": {...}}</tool_call>          Qwen 2.5 and 3, Hermes; the default
    parameters  <tool_call><function=f><parameter=x>...</parameter></function></tool_call>      Qwen3-Coder
    keys        <tool_call>f<arg_key>x</arg_key><arg_value>...</arg_value></tool_call>          GLM 4.5
    kimi        <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}<|tool_call_end|>      Kimi K2
    deepseek    <｜tool▁call▁begin｜>function<｜tool▁sep｜>f ```json {...} ```<｜tool▁call▁end｜>     DeepSeek V3, R1
    mistral     [TOOL_CALLS][{"name": ..., "arguments": {...}}], or [TOOL_CALLS]f[ARGS]{...}
    llama       {"name": ..., "parameters": {...}}, nothing else in the answer     Llama 3

A call that cannot be read is a call with an `error`: the policy is told, nothing is raised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the policy is told of it."""

    name: str
    description: str
    """One sentence or two: what it does, and what comes back."""
    parameters: Mapping[str, str]
    """Name -> what it is; all are strings, all are needed."""
    schema: Mapping[str, Any] | None = None
    """The whole JSON schema, where others gave one: it stands in the place of `parameters`."""

    def as_json(self) -> dict[str, Any]:
        """Return the tool in the form chat templates and OpenAI's API take."""
        properties = {name: {"type": "string", "description": text} for name, text in self.parameters.items()}
        simple = {"type": "object", "properties": properties, "required": list(self.parameters)}
        schema = simple if self.schema is None else dict(self.schema)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call in an answer."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """Why the call cannot be read, as a sentence; empty if it can."""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How one family of models writes calls."""

    name: str
    marker: str
    """What tells it in a chat template, and in an answer that holds a call."""
    read: Callable[[str], Iterator[ToolCall]]

    def calls(self, answer: str) -> tuple[ToolCall, ...]:
        """Return the calls of an answer, special tokens included, in their order."""
        return tuple(self.read(answer)) if self.marker in answer or not self.marker else ()


def format_of(template: str) -> ToolFormat:
    """Return the format that a chat template speaks; hermes if it knows no tools."""
    return next((f for f in FORMATS if f.marker and f.marker in template), _by_words(template))


def described(tools: Sequence[ToolSpec]) -> str:
    """Return what a system message says of tools where the chat template does not know them (form: hermes)."""
    listed = "\n".join(json.dumps(tool.as_json()["function"]) for tool in tools)
    return (
        f"You may call these tools:\n{listed}\n"
        'To call one, write <tool_call>{"name": "...", "arguments": {...}}</tool_call>. Several calls in one answer '
        "run at the same time."
    )


def written(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call in the default form."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': dict(arguments)}, ensure_ascii=False)}</tool_call>"


def _read_hermes(answer: str) -> Iterator[ToolCall]:
    for body in _between(answer, "<tool_call>", "</tool_call>"):
        yield _unfinished(body) if body is None else _from_json(body, "arguments")


def _read_parameters(answer: str) -> Iterator[ToolCall]:
    for body in _between(answer, "<function=", "</function>"):
        if body is None or ">" not in body:
            yield _unfinished(body)
            continue
        name, _, rest = body.partition(">")
        found = re.findall(r"<parameter=([^>]*)>\n?(.*?)\n?</parameter>", rest, re.DOTALL)
        yield ToolCall(name.strip(), {key.strip(): value for key, value in found})


def _read_keys(answer: str) -> Iterator[ToolCall]:
    for body in _between(answer, "<tool_call>", "</tool_call>"):
        if body is None:
            yield _unfinished(body)
            continue
        found = re.findall(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", body, re.DOTALL)
        yield ToolCall(body.partition("<arg_key>")[0].strip(), {key.strip(): value for key, value in found})


def _read_kimi(answer: str) -> Iterator[ToolCall]:
    for body in _between(answer, "<|tool_call_begin|>", "<|tool_call_end|>"):
        head, split, text = (body or "").partition("<|tool_call_argument_begin|>")
        name = head.strip().removeprefix("functions.").partition(":")[0]
        yield _with_arguments(name, text) if split else _unfinished(body)


def _read_deepseek(answer: str) -> Iterator[ToolCall]:
    for body in _between(answer, "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"):
        head, split, rest = (body or "").partition("<｜tool▁sep｜>")
        name, _, text = rest.partition("\n")
        if not split:
            yield _unfinished(body)
        elif not text:  # V3.1: the name stands before the separator, bare arguments after it
            yield _with_arguments(head.strip(), rest)
        else:
            yield _with_arguments(name.strip(), text.strip().removeprefix("```json").removesuffix("```"))


def _read_mistral(answer: str) -> Iterator[ToolCall]:
    for part in answer.split("[TOOL_CALLS]")[1:]:
        name, split, text = part.partition("[ARGS]")
        if split:
            yield _with_arguments(name.strip(), text)
            continue
        try:
            found = json.JSONDecoder().raw_decode(part.strip())[0]
        except (ValueError, RecursionError):
            yield ToolCall("", error="the calls are no JSON list")
            continue
        for one in found if isinstance(found, list) else [found]:
            yield _from_value(one, "arguments")


def _read_llama(answer: str) -> Iterator[ToolCall]:
    text = answer.replace("<|python_tag|>", "").replace("<|eot_id|>", "").replace("<|eom_id|>", "").strip()
    if not text.startswith("{"):
        return
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield ToolCall("", error="the call is no JSON")
            return
        yield _from_value(value, "parameters")
        while at < len(text) and text[at] in "; \n,":
            at += 1


FORMATS = (
    ToolFormat("kimi", "<|tool_call_begin|>", _read_kimi),
    ToolFormat("deepseek", "<｜tool▁call▁begin｜>", _read_deepseek),
    ToolFormat("mistral", "[TOOL_CALLS]", _read_mistral),
    ToolFormat("parameters", "<function=", _read_parameters),
    ToolFormat("keys", "<arg_key>", _read_keys),
    ToolFormat("hermes", "<tool_call>", _read_hermes),
)
"""The most telling markers first: some families share others."""

LLAMA = ToolFormat("llama", "", _read_llama)


def _by_words(template: str) -> ToolFormat:
    llama = "python_tag" in template or ('"parameters"' in template and "tool_call" in template)
    return LLAMA if llama else FORMATS[-1]


def _between(text: str, opening: str, closing: str) -> Iterator[str | None]:
    """Yield what stands between marks, in linear time; None for a last one that is never closed."""
    at = text.find(opening)
    while at >= 0:
        begin = at + len(opening)
        end = text.find(closing, begin)
        if end < 0:
            yield None
            return
        yield text[begin:end]
        at = text.find(opening, end + len(closing))


def _unfinished(body: str | None) -> ToolCall:
    return ToolCall("", error="the call is not finished" if body is None else "the call cannot be read")


def _with_arguments(name: str, text: str) -> ToolCall:
    try:
        arguments = json.JSONDecoder().raw_decode(text.strip())[0]
    except (ValueError, RecursionError):
        return ToolCall(name, error="the arguments are no JSON")
    if not isinstance(arguments, dict):
        return ToolCall(name, error="the arguments are no JSON object")
    return ToolCall(name, arguments)


def _from_json(body: str, key: str) -> ToolCall:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ToolCall("", error="the call is no JSON")
    return _from_value(value, key)


def _from_value(value: object, key: str) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return ToolCall("", error='the call has no "name"')
    arguments = value.get(key, value.get("parameters" if key == "arguments" else "arguments", {}))
    if isinstance(arguments, str):  # some models write the arguments as JSON within JSON
        return _with_arguments(value["name"], arguments)
    if not isinstance(arguments, dict):
        return ToolCall(value["name"], error=f'"{key}" is no JSON object')
    return ToolCall(value["name"], arguments)
