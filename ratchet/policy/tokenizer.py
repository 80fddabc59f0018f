"""Text to tokens and back, chat templates included, over a `tokenizers` file as Hugging Face checkpoints hold it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ratchet.core.errors import ConfigError, ModelError
from ratchet.core.rollout import Tokens
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolFormat, ToolSpec, described, format_of

TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Chat template of tiny models: a role token, the text, and an end token after the assistant's."""

TINY_SPECIAL = ("<|pad|>", "<|end|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
"""Special tokens of tiny models, numbered from 0 in this order."""


CHATS_KEPT = 4096
"""Conversations whose tokens are remembered."""


class Tokenizer:
    """A tokenizer with its chat template, end tokens and padding token."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any], end_tokens: Sequence[int]) -> None:
        """`settings` is the content of ``tokenizer_config.json``; `end_tokens` come from the model's configs."""
        self.backend, self.settings = backend, settings
        self.end_tokens = tuple(end_tokens)
        self._chats: dict[tuple[tuple[Message, ...], tuple[str, ...]], Tokens] = {}
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what gives tokens their meaning: twelve hexadecimal digits."""
        vocabulary = json.dumps([self.backend.to_str(), self.end_tokens])
        return hashlib.blake2b(vocabulary.encode(), digest_size=6).hexdigest()

    @cached_property
    def largest_token(self) -> int:
        """The largest number a token has: numbers may have gaps."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text; nothing is added around it."""
        return np.array(self.backend.encode(text, add_special_tokens=False).ids, dtype=np.int32)

    def decode(self, tokens: Tokens | Sequence[int]) -> str:
        """Return the text of tokens, special tokens left out."""
        return str(self.backend.decode([int(t) for t in tokens], skip_special_tokens=True))

    def pieces(self, tokens: Tokens | Sequence[int]) -> list[str]:
        """Return each token as text, special tokens included: a view for people."""
        return [str(self.backend.id_to_token(int(t))) for t in tokens]

    def spell(self, tokens: Tokens | Sequence[int]) -> list[str]:
        """Return what each token adds to the text; a token in the middle of a character adds nothing yet.

        Joined, they are the text with its special tokens. A token is decoded behind the one before, because what it
        becomes may depend on that (a space at the beginning of a word).
        """
        spelt: list[str] = []
        begin = read = 0
        ids = [int(t) for t in tokens]
        for end in range(1, len(ids) + 1):
            before = str(self.backend.decode(ids[begin:read], skip_special_tokens=False))
            now = str(self.backend.decode(ids[begin:end], skip_special_tokens=False))
            whole = len(now) > len(before) and (not now.endswith("\ufffd") or end == len(ids))
            spelt.append(now[len(before) :] if whole else "")
            if whole:
                begin, read = read, end
        return spelt

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, reply: bool = True) -> str:
        """Return the conversation as the chat template writes it, with the opening of a reply unless told not to.

        Tools are told by the template where it knows any, else by the system message.
        """
        given = {}
        if tools and "tools" in self._template_source:
            given = {"tools": [tool.as_json() for tool in tools]}
        elif tools:
            messages = _with_tools(messages, tools)
        try:
            return str(
                self._template.render(
                    messages=[{"role": m.role, "content": m.content} for m in messages],
                    **given,
                    add_generation_prompt=reply,
                    **{k: self._named(k) or "" for k in ("bos_token", "eos_token", "pad_token", "unk_token")},
                )
            )
        except TemplateError as error:
            raise ConfigError(f"The chat template refused the conversation: {error}.") from None

    def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Tokens:
        """Return the tokens of a conversation up to where the policy answers; read-only."""
        key = (tuple(messages), tuple(repr(tool) for tool in tools))  # strangers' tools may share a name
        tokens = self._chats.get(key)
        if tokens is None:  # every attempt at a task asks for the same prompt
            if len(self._chats) >= CHATS_KEPT:
                self._chats.clear()
            tokens = self._chats[key] = self.encode(self.render(messages, tools))
            tokens.flags.writeable = False
        return tokens

    def tool_calls(self, tokens: Tokens, text: str, *, asked: bool) -> tuple[ToolCall, ...]:
        """Return the tool calls of an answer, given as tokens and as their text, in the chat template's own form.

        A form without a marker of its own is read only if the policy was `asked` to use tools.
        """
        form = self.tool_format
        if not form.marker:
            return form.calls(text) if asked else ()
        if form.name in ("kimi", "deepseek", "mistral"):  # their markers are special tokens, which the text lacks
            text = str(self.backend.decode([int(t) for t in tokens], skip_special_tokens=False))
        return form.calls(text)

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How this family of models writes tool calls."""
        return format_of(self._template_source)

    @cached_property
    def pad_token(self) -> int:
        """A token for padding; the first end token where the checkpoint names none."""
        name = self._named("pad_token")
        found = self.backend.token_to_id(name) if name else None
        return int(found) if found is not None else self.end_tokens[0]

    @cached_property
    def unknown_token(self) -> int | None:
        """The token unknown text becomes, or None if the tokenizer knows every text."""
        name = self._named("unk_token")
        return self.backend.token_to_id(name) if name else None

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        # Not `backend.save`: on a full disk it raises plain Exception.
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n")

    def _named(self, key: str) -> str | None:
        value = self.settings.get(key)
        return value.get("content") if isinstance(value, dict) else value

    @property
    def converses(self) -> bool:
        """Return whether there is a chat template: a base model may lack one."""
        return bool(self._template_given)

    @property
    def _template_given(self) -> Any:
        source = self.settings.get("chat_template")
        if isinstance(source, list):  # several named templates; the plain one is called "default"
            source = {t["name"]: t["template"] for t in source}.get("default")
        return source

    @cached_property
    def _template_source(self) -> str:
        if not (source := self._template_given):
            raise ModelError(
                "The checkpoint's tokenizer has no chat template, so a conversation cannot be put to the model. "
                "Set policy.chat_template to a file with one, or take an instruct checkpoint, which brings its own."
            )
        return str(source)

    @cached_property
    def _template(self) -> Any:
        source = self._template_source
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        return environment.from_string(source)


def _with_tools(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """Return the conversation with the tools described in its system message."""
    first, rest = messages[0], list(messages[1:])
    if first.role == "system":
        return [Message("system", f"{first.content}\n\n{described(tools)}"), *rest]
    return [Message("system", described(tools)), first, *rest]


def _refuse(message: str) -> None:
    raise TemplateError(message)


def load_tokenizer(folder: Path, end_tokens: Sequence[int], *, template: str = "") -> Tokenizer:
    """Return the tokenizer of a checkpoint folder; `template` is a file whose chat template takes the place of its own.

    Raises `ModelError` when ``tokenizer.json`` is missing or no end token is known.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json. Save the tokenizer in its fast form "
            '(AutoTokenizer.from_pretrained(...).save_pretrained("folder")).'
        )
    settings_path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(settings_path.read_text()) if settings_path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{settings_path} is not JSON: {error}. The file is damaged.") from None
    beside = folder / "chat_template.jinja"
    if template:
        settings["chat_template"] = _read_template(Path(template).expanduser())
    elif beside.is_file():
        settings["chat_template"] = beside.read_text()
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{path} cannot be read: {error}. The file is damaged, or of a newer kind.") from None
    found = list(end_tokens)
    eos = settings.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    eos_id = backend.token_to_id(eos) if eos else None
    if eos_id is not None and eos_id not in found:
        found.append(eos_id)
    if not found:
        raise ModelError(
            f"{folder} names no end token (eos_token_id in config.json, or eos_token in tokenizer_config.json), so no "
            "answer could ever end. Add one of them."
        )
    return Tokenizer(backend, settings, found)


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f'policy.chat_template = "{path}" cannot be read: {error}.') from None


def tiny_tokenizer(words: Sequence[str], characters: str) -> Tokenizer:
    """Return a tokenizer that knows some words and otherwise single characters.

    Longer words win over shorter ones. Text with other characters becomes the unknown token.
    """
    words = sorted({w for w in words if len(w) > 1}, key=lambda w: (-len(w), w))
    singles = sorted(set(characters) | {w for w in words if len(w) == 1})
    vocabulary = {token: i for i, token in enumerate([*TINY_SPECIAL, *sorted(words), *singles])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<|unk|>"))
    pattern = "|".join([re.escape(w) for w in words] + [r"[\s\S]"])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    backend.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in TINY_SPECIAL])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|pad|>",
        "eos_token": "<|end|>",
        "unk_token": "<|unk|>",
        "chat_template": TINY_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(backend, settings, [vocabulary["<|end|>"]])
