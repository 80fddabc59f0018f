"""What each token adds to a text: joined it is the text, and no half character is shown."""

from __future__ import annotations

from builders import tiny_policy
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from ratchet.policy.tokenizer import Tokenizer


def by_bytes() -> Tokenizer:
    """Return a tokenizer with a token for each byte, as byte-level models have at least."""
    vocabulary = {sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, {}, (0,))


def test_a_character_of_several_tokens_appears_with_its_last() -> None:
    tokenizer = by_bytes()
    text = "größe 😀!"
    spelt = tokenizer.spell(tokenizer.encode(text))
    assert spelt == ["g", "r", "", "ö", "", "ß", "e", " ", "", "", "", "😀", "!"]
    assert "".join(spelt) == text


def test_an_answer_that_was_cut_inside_a_character_shows_the_mark_for_it() -> None:
    tokenizer = by_bytes()
    assert tokenizer.spell(tokenizer.encode("a😀")[:3]) == ["a", "", "\ufffd"]
    assert tokenizer.spell([]) == []


def test_special_tokens_are_spelt_too() -> None:
    tokenizer = tiny_policy().tokenizer
    tokens = [*tokenizer.encode("ab").tolist(), tokenizer.end_tokens[0]]
    assert tokenizer.spell(tokens) == ["a", "b", "<|end|>"]
