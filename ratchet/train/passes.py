"""Forward passes of any decoder over samples: cut, packed, and measured at the tokens that are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ratchet.kernels.reference import TokenStats
from ratchet.policy.policy import FrozenNetwork
from ratchet.train.experience import Sample
from ratchet.train.packing import Packed, cut, packed
from ratchet.train.team import ALONE, Team


@dataclass(slots=True)
class Work:
    """What has been computed so far."""

    flops: int = 0
    """Floating-point operations of matrix products and attention, forward and backward."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How samples are cut into forward passes, and how logits become log-probabilities."""

    device: torch.device
    micro_batch_tokens: int
    max_logits: int
    temperature: float
    team: Team = ALONE
    work: Work = field(default_factory=Work)

    def over(self, samples: Sequence[Sample], chosen: Sequence[int]) -> Iterator[Packed]:
        """Yield this rank's forward passes over the samples `chosen`; each says which ones it holds.

        Where there are several ranks, passes are cut small enough for all of them to get some.
        """
        most = self.micro_batch_tokens
        if self.team.size > 1:
            most = max(1, min(most, -(-sum(map(_cost(samples), chosen)) // self.team.size)))
        passes = list(cut(samples, chosen, most))
        costs = [sum(map(_cost(samples), members)) for members in passes]
        for members, counts in self.team.share(passes, costs):
            yield packed(samples, members, self.device, counts=counts)

    def hidden(self, decoder: FrozenNetwork, one: Packed) -> Tensor:
        """Return the hidden state behind each trained token: (N, C). Its backward pass is counted here too."""
        forward = decoder.shape.forward_flops(len(one.tokens), one.pairs, 0)
        self.work.flops += forward * (3 if torch.is_grad_enabled() else 1)
        return decoder(one.tokens, one.layout)[one.predictor]

    def stats(
        self,
        decoder: FrozenNetwork,
        one: Packed,
        *,
        temperature: float | None = None,
        reference: tuple[Tensor, Tensor] | None = None,
    ) -> TokenStats:
        """Return log-probability, entropy and, with a reference's (hidden, head), the exact KL to it: (N,) each."""
        measure = partial(
            decoder.ops.token_stats,
            target=one.target,
            temperature=self.temperature if temperature is None else temperature,
            max_logits=self.max_logits,
            product=decoder.ops.linear,
        )
        # Going back, the logits are made once more, and two products of the same size give the gradients.
        logits = decoder.shape.forward_flops(0, 0, len(one.target))
        self.work.flops += logits * (4 if torch.is_grad_enabled() else 1)
        if reference is not None:
            self.work.flops += 2 * reference[1].numel() * len(one.target)
            measure = partial(measure, reference=reference)
        return measure(self.hidden(decoder, one), decoder.head)

    @torch.no_grad()
    def logprobs(
        self, decoder: FrozenNetwork, samples: Sequence[Sample], *, temperature: float | None = None, kept: bool = True
    ) -> Tensor:
        """Return the log-probability of every trained token, sample by sample: (N,).

        With `kept`, it is that of the distribution top-k and top-p left, as the sampler recorded it.
        """
        places = _places(samples)
        out = torch.zeros(places[-1], device=self.device)
        for one in self.over(samples, range(len(samples))):
            logp = self.stats(decoder, one, temperature=temperature).logprob
            _spread(out, logp - one.log_kept if kept else logp, one, places)
        return self.team.add(out)

    @torch.no_grad()
    def values(self, decoder: FrozenNetwork, head: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Return ``hidden @ head`` at every trained token, sample by sample: (N,). Shape: head (C,)."""
        places = _places(samples)
        out = torch.zeros(places[-1], device=self.device)
        for one in self.over(samples, range(len(samples))):
            _spread(out, self.hidden(decoder, one) @ head, one, places)
        return self.team.add(out)


def _cost(samples: Sequence[Sample]) -> Callable[[int], int]:
    """Return a function from a sample's number to its tokens, prompt included."""
    return lambda i: len(samples[i].prompt) + len(samples[i].tokens)


def _places(samples: Sequence[Sample]) -> list[int]:
    """Return where each sample's tokens begin in a column, and the column's length."""
    places = [0]
    for sample in samples:
        places.append(places[-1] + sample.num_trained)
    return places


def _spread(out: Tensor, values: Tensor, one: Packed, places: Sequence[int]) -> None:
    """Write the values of one pass to their samples' places, if it counts: another rank has them else."""
    if not one.counts:
        return
    at = 0
    for i in one.chosen:
        length = places[i + 1] - places[i]
        out[places[i] : places[i + 1]] = values[at : at + length]
        at += length
