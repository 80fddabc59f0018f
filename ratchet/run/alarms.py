"""The doctor's online rules as the guard asks them: rows of metrics in, alarms out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.config.guard import RemedyName
from ratchet.config.schema import RunConfig
from ratchet.doctor.diagnose import diagnose
from ratchet.doctor.evidence import evidence_of_rows
from ratchet.doctor.recorded import flat
from ratchet.run.guard import Alarm
from ratchet.store.run_store import Row

HELPED: Mapping[str, Sequence[RemedyName]] = {
    "not_finite": ("lr", "optimiser"),
    "reward_collapse": (),
    "length_surge_reward_fall": ("lr", "kl"),
    "kl_blow_up": (),
    "entropy_explosion": (),
    "gradient_spikes": ("lr",),
}
"""Rules whose harm lies in the weights, so that turning back helps, and the remedies that fit best; none takes the
config's own order. Timeouts of a reward, say, are as many with older weights."""


def online_alarms(config: RunConfig, rows: Sequence[Row]) -> list[Alarm]:
    """Return what the doctor's online rules find in the rows of all steps so far."""
    evidence = evidence_of_rows(rows, dict(flat(config.model_dump(mode="json"))))
    return [
        Alarm(
            finding.rule,
            finding.severity.label,
            finding.metric,
            finding.first,
            finding.sentence,
            tuple(HELPED.get(finding.rule, ())),
            finding.rule in HELPED,
        )
        for finding in diagnose(evidence, online=True)
    ]
