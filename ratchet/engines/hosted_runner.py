"""A runner over a model of `transformers`: any architecture, on any device, and slower than our own.

Two ways, and the model itself is asked which: with the library's key-value cache, rows padded on the left; or, where
padding or the cache would change what the model says (recurrent layers, positions of its own), by computing every row
anew for each token. The first is tried on two short rows when the runner is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.policy.hosted import HostedDecoder

PROBE_ROOM = 1e-3
"""How far logits may differ between the two ways by rounding alone, relative to the largest."""


@dataclass(slots=True, eq=False)
class _Cohort:
    """Rows that are computed together. Their tokens stand at the right, padding at the left."""

    rows: list[int]
    cache: Any
    mask: Tensor
    """(B, L) 1 for tokens in the cache, 0 for padding."""
    position: Tensor
    """(B,) place of the next token in its row."""


class HostedRunner:
    """See `engines.runner.Runner` for what the methods promise."""

    def __init__(self, decoder: HostedDecoder, *, cache: bool = True) -> None:
        """`cache` says whether the key-value cache may be used where it is exact."""
        self._decoder, self._device = decoder, decoder.device
        self._cohorts: list[_Cohort] = []
        self._texts: dict[int, list[int]] = {}
        """The tokens of each open row; only without a cache."""
        self._next = 0
        self._cache_argument = next((a for a in ("cache", "past_key_values") if a in decoder.takes), "")
        self.caches = cache and bool(self._cache_argument) and self._cache_is_exact()
        """Whether the key-value cache is used; else every row is computed anew for each token."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in weights by the names the model has for them. Rows in flight keep their cache."""
        self._decoder.copy_stored(weights)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        """Run each distinct prompt once and open rows that continue it; see `Runner`."""
        texts = [prompt.tolist() for prompt in prompts]
        rows = []
        for count in copies:
            rows.append(list(range(self._next, self._next + count)))
            self._next += count
        if not self.caches:
            self._texts |= {row: list(text) for mine, text in zip(rows, texts, strict=True) for row in mine}
            return rows, self._anew(texts)
        cohort, logits = self._begin(texts)
        many = torch.arange(len(texts)).repeat_interleave(torch.tensor(list(copies))).to(self._device)
        self._cohorts.append(_chosen(cohort, many, [r for mine in rows for r in mine]))
        return rows, logits

    @torch.inference_mode()
    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append one token to every open row; see `Runner`."""
        if not self.caches:
            for row, token in zip(rows, tokens.tolist(), strict=True):
                self._texts[row].append(token)
            return self._anew([self._texts[row] for row in rows])
        self._gather()
        place = {row: i for i, row in enumerate(rows)}
        logits = torch.empty(len(rows), self._decoder.shape.vocab, device=self._device)
        for cohort in self._cohorts:
            at = torch.tensor([place[row] for row in cohort.rows], device=self._device)
            cohort.mask = torch.cat([cohort.mask, torch.ones_like(cohort.mask[:, :1])], 1)
            logits[at] = self._ask(tokens[at][:, None], cohort.mask, cohort.position[:, None], cohort.cache)
            cohort.position = cohort.position + 1
        return logits

    @torch.inference_mode()
    def release(self, rows: Sequence[int]) -> None:
        """Forget rows and free their memory."""
        gone = set(rows)
        for row in gone:
            self._texts.pop(row, None)
        kept = []
        for cohort in self._cohorts:
            stay = [i for i, row in enumerate(cohort.rows) if row not in gone]
            if len(stay) == len(cohort.rows):
                kept.append(cohort)
            elif stay:
                kept.append(_chosen(cohort, torch.tensor(stay, device=self._device), [cohort.rows[i] for i in stay]))
        self._cohorts = kept

    def _begin(self, texts: Sequence[Sequence[int]]) -> tuple[_Cohort, Tensor]:
        """Run texts of several lengths through an empty cache; return it and the logits after each."""
        from transformers import DynamicCache

        width = max(map(len, texts))
        tokens = torch.zeros(len(texts), width, dtype=torch.int64)
        mask = torch.zeros(len(texts), width, dtype=torch.int64)
        for i, text in enumerate(texts):
            tokens[i, width - len(text) :] = torch.tensor(text)
            mask[i, width - len(text) :] = 1
        position = (mask.cumsum(1) - 1).clamp(min=0)
        tokens, mask, position = (x.to(self._device) for x in (tokens, mask, position))
        cache = DynamicCache(config=self._decoder.model.config)
        logits = self._ask(tokens, mask, position, cache)
        return _Cohort([], cache, mask, position[:, -1] + 1), logits

    def _ask(self, tokens: Tensor, mask: Tensor, position: Tensor, cache: Any) -> Tensor:
        """Return the (B, V) float32 logits after the last of some new tokens."""
        out = self._decoder.call(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=position if "position_ids" in self._decoder.takes else None,
            use_cache=True,
            logits_to_keep=1 if "logits_to_keep" in self._decoder.takes else None,
            **{self._cache_argument: cache},
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def _anew(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits after whole texts: (B, V). Padding stands at the right, where nothing before sees it."""
        width = max(map(len, texts))
        tokens = torch.zeros(len(texts), width, dtype=torch.int64)
        mask = torch.zeros(len(texts), width, dtype=torch.int64)
        for i, text in enumerate(texts):
            tokens[i, : len(text)] = torch.tensor(text)
            mask[i, : len(text)] = 1
        last = torch.tensor([len(text) - 1 for text in texts], device=self._device)
        out = self._decoder.call(
            input_ids=tokens.to(self._device), attention_mask=mask.to(self._device), use_cache=False
        )
        logits: Tensor = out.logits[torch.arange(len(texts), device=self._device), last].float()
        return logits

    def _gather(self) -> None:
        """Make one cohort of several, where their caches are plain keys and values."""
        from transformers.cache_utils import DynamicLayer

        if len(self._cohorts) < 2:
            return
        if not all(type(layer) is DynamicLayer for c in self._cohorts for layer in c.cache.layers):
            return
        first, *rest = self._cohorts
        width = max(c.mask.shape[1] for c in self._cohorts)
        for i, layer in enumerate(first.cache.layers):
            for name in ("keys", "values"):
                whole = torch.cat([_left(c.cache.layers[i].__dict__[name], width, -2) for c in self._cohorts])
                layer.__dict__[name] = whole
        first.mask = torch.cat([_left(c.mask, width, -1) for c in self._cohorts])
        first.position = torch.cat([c.position for c in self._cohorts])
        first.rows = first.rows + [row for c in rest for row in c.rows]
        self._cohorts = [first]

    @torch.inference_mode()
    def _cache_is_exact(self) -> bool:
        """Whether a padded row that goes on from the cache gets the logits of the row alone, computed anew."""
        count = self._decoder.shape.vocab
        texts = [[i % count for i in (1, 2, 3, 4, 5)], [i % count for i in (2, 0)]]
        try:
            cohort, first = self._begin(texts)
            cohort = _chosen(cohort, torch.tensor([1, 0, 1], device=self._device), [0, 1, 2])
            mask = torch.cat([cohort.mask, torch.ones_like(cohort.mask[:, :1])], 1)
            new = torch.full((3, 1), 6 % count, device=self._device)
            then = self._ask(new, mask, cohort.position[:, None], cohort.cache)
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError, NotImplementedError):
            return False  # the model has another kind of cache
        longer = [[*texts[i], 6 % count] for i in (1, 0, 1)]
        alone = torch.cat([self._anew([text]) for text in (*texts, *longer)])
        room = PROBE_ROOM * (30 if self._decoder.bf16 else 1) * float(alone.abs().max())
        return bool((torch.cat([first, then]) - alone).abs().max() <= room)


def _chosen(cohort: _Cohort, index: Tensor, rows: list[int]) -> _Cohort:
    """Return a cohort of some of its rows, which may come more than once."""
    cohort.cache.reorder_cache(index)
    return _Cohort(rows, cohort.cache, cohort.mask[index], cohort.position[index])


def _left(x: Tensor, width: int, dimension: int) -> Tensor:
    """Return a tensor with zeros in front along a dimension, up to a width."""
    shape = list(x.shape)
    shape[dimension] = width - shape[dimension]
    return torch.cat([x.new_zeros(shape), x], dimension)
