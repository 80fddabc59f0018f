"""MLflow, through its client: no state of the whole process is touched."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ratchet.config.loggers import MlflowSection
from ratchet.core.errors import ConfigError
from ratchet.core.load import describe
from ratchet.loggers.logger import About

AT_ONCE, SETTINGS_AT_ONCE = 1000, 100
"""Most metrics, and most settings, that a server takes in one request."""
LONGEST = 500
"""Characters of a setting that every version of the server takes; the whole config is among the artifacts."""

SPELT = {"@": "_at_", "+": "_plus"}
"""How signs of our names are written."""

T = TypeVar("T")


class Mlflow:
    """See `logger.Logger`."""

    def __init__(self, section: MlflowSection) -> None:
        """**Raises**: `ConfigError` if such a store cannot be used here; a server is not asked yet."""
        self._section = section
        try:
            self._client = MlflowClient(tracking_uri=section.uri or None)
        except (MlflowException, ImportError) as error:
            raise ConfigError(
                f'log.mlflow.uri = "{section.uri}" cannot be used: {describe(error)}. Name a server; or a folder, as '
                "file:///path, with MLFLOW_ALLOW_FILE_STORE=true; a database needs the whole of mlflow: "
                "pip install mlflow"
            ) from error

    def begin(self, about: About, known: str) -> str:
        """Open the run, or the same run again."""
        client = self._client
        if known:
            client.update_run(known, status="RUNNING")
            self._id = known
            return known
        experiment = client.get_experiment_by_name(self._section.experiment)
        where = client.create_experiment(self._section.experiment) if experiment is None else experiment.experiment_id
        self._id = str(client.create_run(where, run_name=about.name, tags={"study": about.study}).info.run_id)
        for some in _pieces(list(about.settings.items()), SETTINGS_AT_ONCE):
            client.log_batch(self._id, params=[Param(key, _short(str(value))) for key, value in some])
        client.log_artifact(self._id, str(about.folder / "config.toml"))
        return self._id

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send a row."""
        now = int(time.time() * 1000)
        metrics = [Metric(allowed(name), value, now, step) for name, value in numbers.items()]
        for some in _pieces(metrics, AT_ONCE):
            self._client.log_batch(self._id, metrics=some)

    def end(self, *, finished: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, status="FINISHED" if finished else "KILLED")


def allowed(name: str) -> str:
    """Return a metric's name in the letters that MLflow takes: ``pass@1`` becomes ``pass_at_1``."""
    return re.sub(r"[^\w./ :-]", lambda sign: SPELT.get(sign[0], "_"), name, flags=re.ASCII)


def _pieces(things: Sequence[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(things), size):
        yield list(things[first : first + size])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 18] + "... (config.toml)"
