"""Chat templates that do not keep what was said are found, with the first token that differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import tiny_policy

from ratchet.core.errors import ConfigError, ModelError
from ratchet.core.task import Message
from ratchet.explore.handle import continued
from ratchet.policy.policy import Policy
from ratchet.policy.template import prefix_breaks
from ratchet.policy.tokenizer import TINY_TEMPLATE, Tokenizer, load_tokenizer

CHARACTERS = 'abcdefghijklmnopqrstuvwxyzIWY?.,<>/_{}:"1 \n'
STRIPPED = TINY_TEMPLATE.replace("+ message['content']", "+ message['content'].split('</think>')[-1]")
TRIMMED = TINY_TEMPLATE.replace("message['content'] }}", "message['content'] | trim }}")
SILENT = TINY_TEMPLATE.replace(
    "message['content'] }}", "('' if message['role'] == 'assistant' else message['content']) }}"
)


def with_template(template: str, folder: Path) -> Tokenizer:
    tiny_policy(characters=CHARACTERS).tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder, [1])


def test_a_template_that_keeps_everything_is_not_reported(tmp_path: Path) -> None:
    assert prefix_breaks(with_template(TINY_TEMPLATE, tmp_path)) == []


def test_a_template_that_strips_reasoning_is_reported_with_the_first_token_that_differs(tmp_path: Path) -> None:
    tokenizer = with_template(STRIPPED, tmp_path)
    (found,) = prefix_breaks(tokenizer)
    assert found.said == "an answer with reasoning"
    # <|user|> "Is it?" <|assistant|> are 1 + 6 + 1 tokens; then <think> stood there, and a line break stands now.
    assert (found.at, found.kept, found.rendered) == (8, "<think>", "\n")
    assert "token 8 is '\\n' where the conversation had '<think>'" in str(found)


def test_a_template_that_trims_is_reported_where_it_trims(tmp_path: Path) -> None:
    (found,) = prefix_breaks(with_template(TRIMMED, tmp_path))
    assert found.said == "a plain answer"
    assert (found.at, found.kept, found.rendered) == (12, " ", "<|end|>")


def test_sampled_tokens_stay_whatever_the_template_would_make_of_them(tmp_path: Path) -> None:
    tokenizer = with_template(STRIPPED, tmp_path)
    prompt = tokenizer.chat([Message("user", "Is it?")])
    output = tokenizer.encode("<think>Well.</think>Yes.<|end|>")
    whole = continued(tokenizer, prompt, output, [Message("user", "Why?")], ended=True)
    assert whole[: len(prompt) + len(output)].tolist() == [*prompt.tolist(), *output.tolist()]
    assert tokenizer.pieces(whole[len(prompt) + len(output) :]) == ["<|user|>", *"Why?", "<|assistant|>"]


def test_a_template_that_hides_answers_is_refused_where_there_are_several_turns(tmp_path: Path) -> None:
    tokenizer = with_template(SILENT, tmp_path)
    prompt = tokenizer.chat([Message("user", "Is it?")])
    with pytest.raises(ConfigError, match="does not write down what the assistant said"):
        continued(tokenizer, prompt, tokenizer.encode("Yes."), [Message("user", "Why?")], ended=False)


def test_a_template_of_ones_own_takes_the_place_of_the_models(tmp_path: Path) -> None:
    from ratchet.config.schema import PolicySection

    tiny_policy(characters=CHARACTERS).save(tmp_path / "model")
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    policy = Policy.load(tmp_path / "model", asked=PolicySection(chat_template=str(file)))
    assert policy.tokenizer.render([Message("user", "Is it?")]) == "Is it?"
    policy.save(tmp_path / "saved")
    assert Policy.load(tmp_path / "saved").tokenizer.render([Message("user", "Is it?")]) == "Is it?"
    with pytest.raises(ModelError, match=r"policy\.chat_template"):
        Policy.load(tmp_path / "model", asked=PolicySection(chat_template=str(tmp_path / "gone.jinja")))
