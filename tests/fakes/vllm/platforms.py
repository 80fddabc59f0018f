"""What vLLM runs on: here no device that it treats in a way of its own."""

from __future__ import annotations

from types import SimpleNamespace

current_platform = SimpleNamespace(is_cpu=lambda: False)
