"""How many groups are live, kept in memory so that no step counts rows. Owned by `groups.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Census:
    """Live groups by step and by the weights that sampled them."""

    def __init__(self) -> None:
        self.size = 0
        """Live groups."""
        self._by_step: Counter[int] = Counter()
        self._by_sampler: Counter[int] = Counter()
        self._newest = -1

    def agrees(self, other: Census) -> bool:
        """Whether both count the same."""
        return (self._by_step, self._by_sampler) == (other._by_step, other._by_sampler)

    def add(self, step: int, sampler: int, number: int = 1) -> None:
        """Count groups that became live."""
        self.size += number
        self._by_step[step] += number
        self._by_sampler[sampler] += number
        self._newest = max(self._newest, step)

    def remove(self, step: int, sampler: int) -> None:
        """Count a group that is live no more."""
        self.size -= 1
        for counter, key in ((self._by_step, step), (self._by_sampler, sampler)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def up_to(self, step: int) -> int:
        """Return the number of live groups of this step and those before; costs as many lookups as steps lie ahead."""
        return self.size - sum(self._by_step[s] for s in range(step + 1, self._newest + 1))

    def samplers(self) -> frozenset[int]:
        """Return the numbers of the weights behind live groups."""
        return frozenset(self._by_sampler)

    def versions(self, samplers: Mapping[int, Mapping[int, str]]) -> frozenset[int]:
        """Return the versions of weights behind live groups, given what each sampler number stands for."""
        return frozenset(version for number in self._by_sampler for version in samplers[number])
