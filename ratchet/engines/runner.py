"""What the local engine needs from a model that decodes: prefill prompts, advance rows by one token, let rows go.

`dense.DenseRunner` is plain torch and runs anywhere; `native.NativeRunner` uses the C++ kernels on a CPU. Both must
give the same logits. The engine owns scheduling, sampling and stopping; a runner owns only the cache and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from ratchet.core.rollout import Tokens


class Runner(Protocol):
    """A decoder with a key-value cache of rows.

    A row is one sequence being generated. Rows are numbered by the runner; the caller keeps the numbers. Rows that
    share a prompt are prefilled once.
    """

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in weights named as `Decoder.named_parameters` names them. Rows in flight keep their cache."""
        ...

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        """Run each distinct prompt once and open `copies[i]` rows that continue it, each with `room` new tokens.

        Returns the row numbers per prompt, and the (len(prompts), V) float32 logits after each prompt.
        """
        ...

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append one token to each row and return the (B, V) float32 logits after it. Shapes: tokens (B,) int64."""
        ...

    def release(self, rows: Sequence[int]) -> None:
        """Forget rows and free their memory."""
        ...
