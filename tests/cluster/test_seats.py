"""Which GPU is whose."""

from __future__ import annotations

import pytest

from ratchet.cluster.seats import index_of
from ratchet.core.errors import ConfigError


@pytest.mark.parametrize(("visible", "index"), [(None, 5), ("", 5), ("0,1,2,3,4,5", 5), ("5,6", 0), ("7,5", 1)])
def test_the_gpu_that_ray_gives_has_the_number_that_torch_counts_it_by(visible: str | None, index: int) -> None:
    assert index_of("5", visible) == index


def test_a_gpu_that_is_hidden_from_this_process_is_refused() -> None:
    with pytest.raises(ConfigError, match='GPU 5, but CUDA_VISIBLE_DEVICES = "0,1" hides it'):
        index_of("5", "0,1")
