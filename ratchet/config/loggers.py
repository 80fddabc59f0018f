"""The section of a recipe that says who else is told how a run goes. Each field: type, unit, bound, sentence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ratchet.config.section import Section

LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TensorBoardSection(Section):
    """Event files for TensorBoard."""

    folder: str = Field(
        "", description="Folder that holds a folder of event files per run; empty takes tensorboard in the run's own."
    )


class WandbSection(Section):
    """Weights & Biases."""

    project: str = Field("ratchet", min_length=1, description="Project that the run is shown in.")
    entity: str = Field("", description="User or team that owns the project; empty takes your own.")
    mode: Literal["online", "offline"] = Field(
        "online", description="offline writes files into the run's folder, which wandb sync sends later."
    )
    tags: tuple[str, ...] = Field((), description="Labels of the run.")


class MlflowSection(Section):
    """MLflow."""

    uri: str = Field(
        "",
        description="Tracking server, as MLflow writes it; empty takes MLFLOW_TRACKING_URI, else MLflow's default.",
    )
    experiment: str = Field("ratchet", min_length=1, description="Experiment that the run is shown in.")


class TrackioSection(Section):
    """Trackio."""

    project: str = Field("ratchet", min_length=1, description="Project that the run is shown in.")
    space: str = Field("", description="Hugging Face Space to send to, owner/name; empty stays on this machine.")


class LogSection(Section):
    """Who else is told how the run goes. The run's own files are the record; loggers are fed from them."""

    to: tuple[LoggerName, ...] = Field((), description="Loggers that get every step's metrics; none of them is needed.")
    finish_s: float = Field(
        60.0, ge=0, description="Most seconds the end of a run waits for loggers that are still sending."
    )
    tensorboard: TensorBoardSection = Field(default_factory=TensorBoardSection)
    wandb: WandbSection = Field(default_factory=WandbSection)
    mlflow: MlflowSection = Field(default_factory=MlflowSection)
    trackio: TrackioSection = Field(default_factory=TrackioSection)

    @field_validator("to")
    @classmethod
    def _each_once(cls, names: tuple[LoggerName, ...]) -> tuple[LoggerName, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names a logger twice; name each once")
        return names
