"""What ranks 1, 2, ... do: carry out the orders of rank 0. They never explore, and write nothing but their parts of a
checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from ratchet.core.errors import RatchetError
from ratchet.policy.policy import Policy
from ratchet.run.checkpoint import DISK_ERRORS, read_checkpoint, why
from ratchet.run.moments import write_moments
from ratchet.run.parts import make_algorithm, make_trainer, set_threads
from ratchet.run.policies import Models, saved_policy, starting_policy, teacher_of
from ratchet.run.ranks import Begin, End, Order, Ranks, Rehearse, Save, Step
from ratchet.train.trainer import Trainer


def follow(ranks: Ranks, begins: Callable[[Path], None] = lambda folder: None) -> None:
    """Obey rank 0 until it says that the run is over. Raises `RunError` when rank 0 is gone.

    `begins` is told the run's folder each time that a trainer is made.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal signals all ranks at once; rank 0 decides what it means
    trainer: Trainer | None = None
    while not isinstance(order := ranks.hear(), End):
        if isinstance(order, Begin):
            begins(order.checkpoint.parent.parent)
            trainer = _begun(order, ranks)
        else:
            assert trainer is not None
            _obey(order, trainer, ranks)


def _begun(order: Begin, ranks: Ranks) -> Trainer:
    config = order.config
    set_threads(config, ranks.beside)
    policy: Policy = saved_policy(config, order.checkpoint)
    algorithm = make_algorithm(config)
    first = starting_policy(config, policy, order.checkpoint.parent)
    models = Models(policy, first, teacher_of(config, algorithm, policy))
    trainer = make_trainer(config, algorithm, models, ranks.team(config))
    trainer.restore(read_checkpoint(order.checkpoint).optimiser, moments=order.moments)
    return trainer


def _obey(order: Order, trainer: Trainer, ranks: Ranks) -> None:
    match order:
        case Step(groups, number, again):
            try:
                with ranks.together():
                    trainer.step(groups, number, again)
            except RatchetError:
                if ranks.is_broken:
                    raise
                # Else it is about the batch: rank 0 has met it too, and says how the run goes on.
        case Rehearse(prompt, answer):
            trainer.rehearse(prompt, answer)
        case Save(folder):
            wrong = ""
            try:
                write_moments(folder, trainer.state(), rank=ranks.rank)
            except DISK_ERRORS as error:
                wrong = why(error)
            ranks.saved(wrong, "" if trainer.team.sharded else trainer.policy.fingerprint())
