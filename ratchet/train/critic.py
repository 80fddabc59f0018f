"""The critic: a copy of the starting policy that answers with a number, taught what the rewards turned out to be."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ratchet.algorithms.algorithm import Critic
from ratchet.core.batch import Batch
from ratchet.core.errors import NumericsError
from ratchet.policy.policy import Network
from ratchet.train.experience import Sample
from ratchet.train.passes import Passes
from ratchet.train.team import clip


class ValueModel:
    """Owns the critic's weights and optimiser. Its first answer is 0 everywhere."""

    def __init__(self, rule: Critic, decoder: Network, passes: Passes, *, betas: tuple[float, float]) -> None:
        """`decoder` is copied, not kept."""
        self._rule, self._passes = rule, passes
        self._decoder = copy.deepcopy(decoder).requires_grad_(True)
        self._head = nn.Parameter(torch.zeros(decoder.head.shape[1], device=passes.device))
        self._optimiser = torch.optim.AdamW(
            [p for _, p in self._named()], lr=rule.lr, betas=betas, weight_decay=0.0, fused=True
        )

    def values(self, samples: Sequence[Sample]) -> Tensor:
        """Return the expected reward before each trained token: (N,)."""
        return self._passes.values(self._decoder, self._head, samples)

    def learn(self, samples: Sequence[Sample], batch: Batch, *, grad_clip: float) -> dict[str, float]:
        """Take one optimiser step on a batch whose `value` is filled, and return ``critic/*`` metrics.

        Raises `NumericsError` if the gradient is not finite; the weights are then unchanged.
        """
        assert batch.value is not None
        returns = self._rule.returns(batch)
        count, total = len(returns), 0.0
        for one in self._passes.over(samples, range(len(samples))):
            members = torch.tensor(one.chosen, device=returns.device)
            at, part = batch.tokens_of(members), batch.select(members)
            value = self._passes.hidden(self._decoder, one) @ self._head
            loss = self._rule.loss(value, part, returns[at]).sum() / count
            loss.backward()
            total += loss.item()
        parameters, team = [p for _, p in self._named()], self._passes.team
        team.add_gradients(parameters)
        norm, total = clip(parameters, grad_clip), sum(team.gathered(total))
        if norm != norm or norm == float("inf"):
            raise NumericsError(
                "The critic's gradient is not finite; its weights were not changed. Lower algorithm.critic_lr, or look "
                "at this step's rollouts for extreme rewards."
            )
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        left, spread = returns - batch.value, returns.var(correction=0)
        return {
            "critic/loss": total,
            "critic/grad_norm": norm,
            "critic/value/mean": float(batch.value.mean()),
            "critic/explained_variance": float(1 - left.var(correction=0) / spread) if spread > 0 else 0.0,
        }

    def state(self) -> dict[str, Tensor]:
        """Return weights and moments by name, for a checkpoint."""
        named = list(self._named())
        out = {f"weight/{name}": p.detach() for name, p in named}
        for i, entry in self._optimiser.state_dict()["state"].items():
            out |= {f"moment/{named[i][0]}/{key}": value for key, value in entry.items()}
        return out

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        named = list(self._named())
        numbers = {name: i for i, (name, _) in enumerate(named)}
        entries: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for key, value in state.items():
                kind, _, name = key.partition("/")
                if kind == "weight":
                    named[numbers[name]][1].copy_(value)
                else:
                    name, _, moment = name.rpartition("/")
                    entries.setdefault(numbers[name], {})[moment] = value
        self._optimiser.load_state_dict(
            {"state": entries, "param_groups": self._optimiser.state_dict()["param_groups"]}
        )

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what is learned: all of the decoder but its head for tokens, and the head for values."""
        unused = self._decoder.untied_head
        yield from ((n, p) for n, p in self._decoder.named_parameters() if p is not unused)
        yield "value_head", self._head
