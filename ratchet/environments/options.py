"""Options into models: pydantic's findings told as one sentence a person can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ratchet.core.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def read_options(model: type[Model], options: Mapping[str, Any], *, where: str) -> Model:
    """Return the model made of `options`; `where` is the key they stand under, for messages.

    **Raises**: `ConfigError` naming the first key that cannot be used, its value, and what is allowed.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(_explain(model, error, where)) from error


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> str:
    # An unknown key is often the cause of the other findings (the field it was meant for is missing).
    findings = sorted(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    finding = findings[0]
    location = [str(part) for part in finding["loc"]]
    key = ".".join([where, *location])
    more = f" ({len(findings) - 1} more option(s) cannot be used.)" if len(findings) > 1 else ""
    if finding["type"] == "extra_forbidden":
        return f"{key} is no option of {model.__name__}.{nearest(location[-1], _fields(model))}{more}"
    if finding["type"] == "missing":
        return f"{key} is required{_meaning(model, location)}. Set it.{more}"
    if finding["type"] == "value_error":
        reason = str(finding["ctx"]["error"])
        return f"{key}: {reason}.{more}"
    value = json.dumps(finding["input"], default=str)
    allowed = finding["msg"][0].lower() + finding["msg"][1:]
    return f"{key} = {value}: {allowed}{_meaning(model, location)}.{more}"


def _meaning(model: type[BaseModel], location: list[str]) -> str:
    field = _fields(model).get(location[0]) if location else None
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    # An alias stands in for a field whose name is already that of a method.
    return {field.alias or name: field for name, field in model.model_fields.items()}
