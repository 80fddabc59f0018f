"""Readers of binary logs: TensorBoard's event files, and the file an offline run of W&B writes.

Both need the optional libraries of the extra ``logs``; they are imported when such a file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.core.errors import ConfigError
from ratchet.logs.cells import parsed, row_of
from ratchet.logs.collect import Table

WANDB_MAGIC = b":W&B"
WANDB_BLOCK = 1 << 15
WANDB_HEAD = 7
"""Bytes of the file's own head, and of each record's: checksum (4), length (2), kind (1)."""
MAX_RECORD = 64 << 20
RECORD_FRAME = 16
"""Bytes TensorBoard puts around a record: length, two checksums."""


def read_tensorboard(path: Path, table: Table) -> None:
    """Add the scalars of one event file, one row per event. A file that ends in the middle gives what is whole."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError:
        raise _needs_extra(path, "TensorBoard's event files") from None
    num_read = 0
    for packed in RawEventFileLoader(str(path)).Load():
        num_read += RECORD_FRAME + len(packed)
        try:
            event = Event.FromString(packed)
        except DecodeError:
            table.num_odd += 1
            continue
        for value in event.summary.value:
            number = _scalar(value)
            if number is not None:
                table.add((value.tag,), (number,), float(event.step), "tensorboard")
    left = path.stat().st_size - num_read  # the library ends silently where a record is damaged
    if left > 0:
        table.remarks.append(
            f"The last {left} bytes of {path.name} are damaged or cut off; what stands before was read."
        )


def _scalar(value: Any) -> float | None:
    """Return the number a summary holds, in the old form or the new; None for texts, images and histograms."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("scalars", ""):
        from tensorboard.util.tensor_util import make_ndarray

        numbers = make_ndarray(value.tensor)
        if numbers.size == 1 and numbers.dtype.kind in "fiu":
            return float(numbers.item())
    return None


def _needs_extra(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path}: reading {what} needs optional libraries: pip install 'ratchet[logs]'")


def read_wandb(path: Path, table: Table) -> None:
    """Add the history of an offline run of W&B."""
    try:
        record_type = _record_type()
        from google.protobuf.message import DecodeError
    except ImportError:
        raise _needs_extra(path, "offline runs of W&B") from None
    with path.open("rb") as file:
        for packed in _records(path, file, table):
            record = record_type()
            try:
                record.ParseFromString(packed)
            except DecodeError:
                table.num_odd += 1
                continue
            if record.HasField("history"):
                _add_history(record.history, table)


def _add_history(history: Any, table: Table) -> None:
    tree = {}
    for item in history.item:
        key = item.key or "/".join(item.nested_key)
        kind = item.WhichOneof("value")
        text = item.value_json or (item.json if kind == "json" else "")
        if kind in ("boolean", "integer", "number"):  # since 2026; before, every value was JSON
            tree[key] = getattr(item, kind)
        elif text:
            tree[key] = parsed(text)
    if history.HasField("step"):
        tree.pop("_step", None)
    keys, values, _ = row_of(tree)
    if keys:
        table.add(keys, values, float(history.step.num) if history.HasField("step") else nan, "wandb history")


def _records(path: Path, file: BinaryIO, table: Table) -> Iterator[bytes]:
    """Yield the records of W&B's transaction log: blocks of 32 KiB, a record whole (1) or in parts (2, 3, 4).

    The library wrote and read such files in Python until 2026; now only its server can read them.
    """
    if not file.read(WANDB_HEAD).startswith(WANDB_MAGIC):
        raise ConfigError(f"{path} is no file of an offline W&B run: it does not begin as one.")
    at, parts = WANDB_HEAD, b""
    while True:
        room = WANDB_BLOCK - at % WANDB_BLOCK
        if room < WANDB_HEAD:
            file.read(room)
            at += room
        head = file.read(WANDB_HEAD)
        if len(head) < WANDB_HEAD:
            break
        size, kind = int.from_bytes(head[4:6], "little"), head[6]
        packed = file.read(size)
        at += WANDB_HEAD + size
        if len(packed) < size or kind not in (1, 2, 3, 4) or len(parts) > MAX_RECORD:
            table.num_odd += 1
            break  # the run was killed while it wrote, or what follows cannot be trusted
        parts = packed if kind in (1, 2) else parts + packed
        if kind in (1, 4):
            yield parts
            parts = b""


@lru_cache(maxsize=1)
def _record_type() -> Any:
    """Return the message class of a record, with the few fields a history needs."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="ratchet_wandb.proto", package="ratchet_wandb", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, bool, str]) -> None:
        made = file.message_type.add(name=name)
        for field_name, tag, kind, repeated, of in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = made.field.add(name=field_name, number=tag, type=kind, label=label)
            if of:
                added.type_name = f".ratchet_wandb.{of}"

    message("Step", ("num", 1, kinds.TYPE_INT64, False, ""))
    message(
        "Item",
        ("key", 1, kinds.TYPE_STRING, False, ""),
        ("nested_key", 2, kinds.TYPE_STRING, True, ""),
        ("boolean", 4, kinds.TYPE_BOOL, False, ""),
        ("integer", 5, kinds.TYPE_SINT64, False, ""),
        ("number", 6, kinds.TYPE_DOUBLE, False, ""),
        ("json", 8, kinds.TYPE_STRING, False, ""),
        ("value_json", 16, kinds.TYPE_STRING, False, ""),
    )
    item = file.message_type[-1]
    item.oneof_decl.add(name="value")
    for field in item.field:
        if field.name in ("boolean", "integer", "number", "json"):
            field.oneof_index = 0
    message("History", ("item", 1, kinds.TYPE_MESSAGE, True, "Item"), ("step", 2, kinds.TYPE_MESSAGE, False, "Step"))
    message("Record", ("history", 2, kinds.TYPE_MESSAGE, False, "History"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ratchet_wandb.Record"))
