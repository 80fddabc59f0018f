"""Cutting samples into forward passes: no padding, and a prompt shared by several samples computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.kernels.layout import Layout, layout_of, pack
from ratchet.train.experience import Sample


@dataclass(frozen=True, eq=False)
class Packed:
    """One forward pass."""

    chosen: tuple[int, ...]
    """Which samples of the update it holds, in the order their trained tokens stand."""
    tokens: Tensor
    """(T,) input tokens."""
    layout: Layout
    predictor: Tensor
    """(N,) place among the inputs of the token whose hidden state predicts each trained token."""
    target: Tensor
    """(N,) the trained tokens."""
    log_kept: Tensor
    """(N,) log of the mass that top-k and top-p left when each was sampled."""
    pairs: int
    """Sum over input tokens of the tokens each attends to, itself included."""
    counts: bool = True
    """False where a rank only keeps others company: what comes out must not be added to anything."""


def cut(samples: Sequence[Sample], chosen: Sequence[int], max_tokens: int) -> Iterator[tuple[int, ...]]:
    """Yield sets of samples that fit a forward pass of `max_tokens` input tokens; a longer sample goes alone.

    Samples that share a prompt stay together where they fit, and sets hold samples of similar length, which keeps
    the padded rectangles of the reference attention small.
    """
    families: dict[bytes, list[int]] = {}
    for i in chosen:
        families.setdefault(samples[i].prompt.tobytes(), []).append(i)
    ordered = sorted(families.values(), key=lambda f: max(len(samples[i].tokens) for i in f))
    now: list[int] = []
    used = 0
    for family in ordered:
        head = len(samples[family[0]].prompt)
        for position, i in enumerate(family):
            cost = len(samples[i].tokens) - 1 + (head if position == 0 or not now else 0)
            if now and used + cost > max_tokens:
                yield tuple(now)
                now, used = [], 0
                cost = len(samples[i].tokens) - 1 + head
            now.append(i)
            used += cost
    if now:
        yield tuple(now)


def packed(samples: Sequence[Sample], chosen: tuple[int, ...], device: torch.device, *, counts: bool = True) -> Packed:
    """Return the forward pass of the samples `chosen`, which must stand prompt by prompt as `cut` yields them."""
    segments: list[Tokens] = []
    parents: list[int] = []
    own: list[int] = []
    prompt_at: dict[bytes, int] = {}
    for i in chosen:
        sample = samples[i]
        key = sample.prompt.tobytes()
        if key not in prompt_at:
            prompt_at[key] = len(segments)
            segments.append(sample.prompt)
            parents.append(-1)
        own.append(len(segments))
        segments.append(sample.tokens[:-1])  # the last token predicts nothing
        parents.append(prompt_at[key])
    lengths = [len(s) for s in segments]
    start = np.concatenate([[0], np.cumsum(lengths)])
    predictor = []
    for i, segment in zip(chosen, own, strict=True):
        first = start[parents[segment] + 1] - 1  # the prompt's last token predicts the first of the answer
        places = np.concatenate([[first], np.arange(start[segment], start[segment + 1])])
        predictor.append(places[samples[i].trained])
    before = [0 if parent < 0 else lengths[parent] for parent in parents]
    return Packed(
        chosen=chosen,
        tokens=pack(segments, device),
        layout=layout_of(lengths, parents, device),
        predictor=pack(predictor, device),
        target=pack([samples[i].tokens[samples[i].trained] for i in chosen], device),
        log_kept=torch.from_numpy(np.concatenate([samples[i].log_kept[samples[i].trained] for i in chosen])).to(device),
        pairs=sum(n * p + n * (n + 1) // 2 for n, p in zip(lengths, before, strict=True)),
        counts=counts,
    )
