"""TensorBoard: event files, written by the library's own writer; neither TensorFlow nor torch is loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.text import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ratchet.config.loggers import TensorBoardSection
from ratchet.loggers.logger import About


class TensorBoard:
    """See `logger.Logger`. The run's name is its folder; a resumed run adds a file to it."""

    def __init__(self, section: TensorBoardSection) -> None:
        self._folder = section.folder

    def begin(self, about: About, known: str) -> str:
        """Open a new event file beside those that are there."""
        folder = Path(self._folder).expanduser() / about.name if self._folder else about.folder / "tensorboard"
        self._writer = EventFileWriter(str(folder))
        if not known:
            text = "\n".join(f"    {key} = {json.dumps(value)}" for key, value in about.settings.items())
            self._write(0, Summary(value=[_text("settings", text)]))
        return str(folder)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write an event and flush it."""
        self._write(step, Summary(value=[Summary.Value(tag=name, simple_value=x) for name, x in numbers.items()]))

    def end(self, *, finished: bool) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, step: int, summary: Summary) -> None:
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()


def _text(tag: str, text: str) -> Summary.Value:
    return Summary.Value(
        tag=tag,
        metadata=metadata.create_summary_metadata(display_name=tag, description=""),
        tensor=TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        ),
    )
