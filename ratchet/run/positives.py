"""Late replay of successes in a run: when it begins, and which answers of recent steps it shows again.

Both follow from the recorded rows and rollouts and from names, so a resumed run does what the killed one would have.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.algorithms.algorithm import Algorithm
from ratchet.buffer.facts import samplers
from ratchet.config.learning import PositivesSection
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group, Positive
from ratchet.core.seeds import stream
from ratchet.explore.positives import choose_positives, flattened_at, replay_facts, solved_share
from ratchet.store.run_store import RunStore


class Positives:
    """The successes that a run trains on once more."""

    def __init__(self, config: PositivesSection, store: RunStore, *, seed: int, step: int) -> None:
        """`step` steps are done, and lie in the store."""
        self._config, self._store, self._seed = config, store, seed
        self._recent: dict[int, Sequence[Group]] = {}
        self._rates: list[float] = []
        self._since: int | None = None
        if config.per_step:
            self._rates = [row["positives/rate"] for row in store.metrics()[:step]]
            self._since = self._flattened()
            for earlier in range(max(0, step - config.recent), step):
                self._recent[earlier] = store.read_groups(earlier)

    def choose(self, step: int) -> list[Positive]:
        """Return the successes that a step trains on again; none before the rate has flattened."""
        if self._since is None or self._since > step:
            return []
        recent = [group for earlier in sorted(self._recent) for group in self._recent[earlier]]
        rng = stream("positives", self._seed, step)
        return choose_positives(recent, count=self._config.per_step, rng=rng, least=self._config.solved)

    def finish(self, step: int, groups: Sequence[Group], chosen: Sequence[Positive]) -> dict[str, float]:
        """Remember the groups sampled for a step that is trained; return the metrics of its replay."""
        config = self._config
        if not config.per_step:
            return {}
        rate = solved_share(groups, least=config.solved)
        self._rates.append(rate)
        self._recent[step] = groups
        self._recent.pop(step - config.recent, None)
        active = self._since is not None and self._since <= step
        if self._since is None and (since := self._flattened()) is not None:
            self._since = since
            self._store.append_event("positives", since, rate=rate, per_step=config.per_step)
        facts = replay_facts(chosen, step=step, asked=config.per_step if active else 0, least=config.solved)
        return {"positives/rate": rate, **facts}

    def versions(self) -> frozenset[int]:
        """Return the versions of weights behind what may still be shown again: a checkpoint keeps their names."""
        return frozenset(v for groups in self._recent.values() for group in groups for v in samplers(group))

    def _flattened(self) -> int | None:
        config = self._config
        return flattened_at(self._rates, window=config.window, gain=config.gain, start=config.start)


def check_positives(config: PositivesSection, name: str, algorithm: Algorithm) -> None:
    """Raise `ConfigError` if the algorithm's advantage is not one number per answer that could be kept."""
    if config.per_step and (algorithm.critic is not None or algorithm.needs or not algorithm.sampled):
        raise ConfigError(
            f"positives.per_step = {config.per_step} keeps the advantage that an answer had in its group, but "
            f'algorithm.name = "{name}" gives none to answers (it has a critic, a teacher or a greedy baseline). Set '
            "positives.per_step = 0 or choose another algorithm."
        )
