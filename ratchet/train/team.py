"""The ranks that train together: who computes which forward pass, and what is added up over all of them.

Every rank holds the same facts and derives the same coefficients from the whole batch; a rank then computes its share
of the forward passes, and gradients and sums are added up. So a number does not depend on how many ranks there are, but
for the order of additions. A team of one adds nothing and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

BUCKET_BYTES = 64 << 20
"""Gradients are sent in pieces of about this size: enough to fill a link, little beside the weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Team:
    """A place among the ranks that train together."""

    rank: int = 0
    size: int = 1
    shard: Literal["none", "full"] = "none"
    """With "full" each rank holds a part of every weight (FSDP2), with "none" all of them."""
    control: dist.ProcessGroup | None = None
    """Where Python objects are exchanged, by gloo, so that no GPU waits for them."""

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of every weight."""
        return self.shard == "full" and self.size > 1

    def mesh(self, device: torch.device) -> DeviceMesh:
        """Return all ranks as the mesh that `fully_shard` asks for."""
        assert dist.group.WORLD is not None
        return DeviceMesh.from_group(dist.group.WORLD, device.type)

    def share(self, passes: Sequence[tuple[int, ...]], costs: Sequence[int]) -> list[tuple[tuple[int, ...], bool]]:
        """Return the forward passes of this rank, and of each whether it counts.

        Dearest first, each goes to the rank with the least to do. Sharded ranks must take part in each other's passes,
        so those with fewer repeat a cheap one that does not count.
        """
        if self.size == 1:
            return [(one, True) for one in passes]
        load, mine = [0] * self.size, [list[int]() for _ in range(self.size)]
        for i in sorted(range(len(passes)), key=lambda i: (-costs[i], i)):
            least = load.index(min(load))
            load[least] += costs[i]
            mine[least].append(i)
        own = [(passes[i], True) for i in sorted(mine[self.rank])]
        if self.sharded and passes:
            cheapest = passes[min(range(len(passes)), key=lambda i: (costs[i], i))]
            own += [(cheapest, False)] * (max(map(len, mine)) - len(own))
        return own

    def add(self, values: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, value: Any) -> list[Any]:
        """Return what each rank has, in order of their numbers."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def tell(self, order: object) -> None:
        """Send an object from rank 0 to all others; each of them is in `hear`."""
        if self.size > 1:
            dist.broadcast_object_list([order], src=0, group=self.control)

    def hear(self) -> object:
        """Return what rank 0 tells."""
        box: list[object] = [None]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients up over all ranks. Sharded ones were while they were made (`reduce-scatter`).

        This is what DDP does at the last of several backward passes, in one go: a rank may have had any number of them.
        """
        if self.size == 1 or self.sharded:
            return
        chosen = list(parameters)
        flags = torch.tensor([p.grad is not None for p in chosen], dtype=torch.int32, device=chosen[0].device)
        bucket: list[Tensor] = []
        for p, anywhere in zip(chosen, self.add(flags).tolist(), strict=True):
            if not anywhere:
                continue
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            bucket.append(p.grad)
            if sum(g.numel() * g.element_size() for g in bucket) >= BUCKET_BYTES:
                self._add_all(bucket)
                bucket = []
        self._add_all(bucket)

    def _add_all(self, tensors: Sequence[Tensor]) -> None:
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            alike = [t for t in tensors if t.dtype == dtype]
            whole = self.add(torch.cat([t.reshape(-1) for t in alike]))
            for t, part in zip(alike, whole.split([t.numel() for t in alike]), strict=True):
                t.copy_(part.view_as(t))


ALONE = Team()
"""The team of a run in one process."""


def clip(parameters: Sequence[nn.Parameter], longest: float) -> float:
    """Scale the gradients down to a norm of `longest`, whole or sharded, and return the norm they had.

    With a norm that is not finite they are left as they are.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, dist.tensor.DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return float(norm)
