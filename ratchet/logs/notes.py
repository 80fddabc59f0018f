"""What there is to say about how a log was read, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ratchet.logs.build import Built
from ratchet.logs.collect import MAX_KEYS, Table
from ratchet.logs.frameworks.entry import Framework
from ratchet.logs.lines import MAX_LINE
from ratchet.logs.log import Join, Note, StepAxis, Topic

SHOWN = 5
"""Joins, series or steps that are named one by one."""
ZERO = {
    "kl/ref": "kl/ref is exactly 0 throughout: the KL penalty is off (beta or coefficient 0) and nothing was measured. "
    "It does not say that the policy stays near its reference.",
    "clip/frac": "clip/frac is exactly 0 throughout: normal with fresh data and one update per batch.",
}
"""Canonical name -> what it means if every value is 0."""


def notes(table: Table, framework: Framework, built: Built, num_dropped: int) -> tuple[Note, ...]:
    """Return the notes on a log, those on its steps first."""
    return (
        *_on_steps(table, built),
        *_on_values(built),
        *_on_what_is_missing(table, built, num_dropped),
        *_on_meaning(framework, built),
    )


def _on_steps(table: Table, built: Built) -> Iterator[Note]:
    if built.axis is StepAxis.ROW:
        yield Note(Topic.NUMBERED, "The log names no step: its rows were numbered from 1, so a step is a logged row.")
    elif built.by_bar:
        yield Note(Topic.NUMBERED, "The log names no step: it is taken from the progress bar printed after each row.")
    elif built.num_without_step:
        yield Note(Topic.NUMBERED, f"{_rows(built.num_without_step)} without a step took that of the row before.")
    for join in built.joins[:SHOWN]:
        yield Note(Topic.JOIN, _join(join))
    if len(built.joins) > SHOWN:
        yield Note(Topic.JOIN, f"{len(built.joins) - SHOWN} more such places were handled the same way.")
    if built.num_repeats:
        yield Note(
            Topic.REPEAT,
            f"{_rows(built.num_repeats)} repeated the step of another with the same keys (several processes or several "
            "updates a step, or a file read twice): of each step the last row counts.",
        )
    if built.num_late:
        yield Note(Topic.ORDER, f"{_rows(built.num_late)} came out of order and were sorted by step.")
    if built.axis is not StepAxis.ROW and not built.joins and built.first_step > max(1, 2 * built.stride):
        yield Note(Topic.START, f"The log begins at step {built.first_step}: what was before is not in it.")
    if len(table.sources) > 1:
        yield Note(Topic.JOIN, f"{len(table.sources)} files were read as one run and joined by step.")


def _join(join: Join) -> str:
    if join.restart:
        return (
            f"At row {join.row + 1} the steps begin again at {join.entered}, after {join.left}: another run in the "
            f"same log. The {join.replaced} steps before were left out."
        )
    return (
        f"At row {join.row + 1} the steps go back from {join.left} to {join.entered}: a resumed run. "
        f"{join.replaced} steps of the part before gave way to the later part."
    )


def _on_values(built: Built) -> Iterator[Note]:
    everything = [*built.series.values(), *built.evals.values(), *built.unrecognised.values()]
    broken = [series for series in everything if series.num_non_finite]
    for series in broken[:SHOWN]:
        steps = series.steps[~np.isfinite(series.values)]
        told = ", ".join(str(step) for step in steps[:SHOWN].tolist())
        yield Note(
            Topic.NON_FINITE,
            f"{series.name} is NaN or infinite at {series.num_non_finite} of {len(series.steps)} steps: {told}"
            f"{', ...' if len(steps) > SHOWN else ''}.",
        )
    if len(broken) > SHOWN:
        yield Note(Topic.NON_FINITE, f"{len(broken) - SHOWN} more series have values that are not finite.")


def _on_what_is_missing(table: Table, built: Built, num_dropped: int) -> Iterator[Note]:
    if num_dropped:
        yield Note(Topic.LEFT_OUT, f"{num_dropped} printed dicts without a metric known here were left out.")
    if table.num_odd:
        yield Note(Topic.LEFT_OUT, f"{table.num_odd} lines or records could not be read and were passed over.")
    if built.num_unreadable:
        yield Note(
            Topic.LEFT_OUT,
            f"{_rows(built.num_unreadable)} whose step is no step, unlike that of their like, were left out.",
        )
    if table.num_long_lines:
        yield Note(
            Topic.LEFT_OUT,
            f"{table.num_long_lines} lines of more than {MAX_LINE >> 20} million characters were passed over.",
        )
    if table.num_refused_keys:
        yield Note(
            Topic.LEFT_OUT,
            f"The log has more than {MAX_KEYS:,} different keys: {table.num_refused_keys} values were left out.",
        )
    for remark in dict.fromkeys(table.remarks):
        yield Note(Topic.LEFT_OUT, remark)


def _on_meaning(framework: Framework, built: Built) -> Iterator[Note]:
    for name, sentence in ZERO.items():
        series = built.series.get(name)
        if series is not None and len(series.values) and not series.values.any():
            yield Note(Topic.MEANING, sentence)
    for name, sentence in framework.caution.items():
        known = any(n.startswith(name) for n in built.series) if name.endswith("/") else name in built.series
        if known:
            yield Note(Topic.MEANING, sentence)
    if "kl/unsaid" in built.series:
        yield Note(
            Topic.MEANING,
            f"Which KL {built.series['kl/unsaid'].key} is (to the reference, to the old policy, to the sampler), the "
            "log does not say.",
        )
    if built.also:
        told = ", ".join(f"{key} ({series.name})" for key, series in list(built.also.items())[:SHOWN])
        more = ", ..." if len(built.also) > SHOWN else ""
        yield Note(Topic.MEANING, f"Another key of this log holds the name of {told}{more}: kept apart.")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
