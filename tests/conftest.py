"""One thread for arithmetic (the models of the tests are too small for two), `builders` for every room's tests, and
property tests that draw the same examples every time."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
settings.register_profile("ratchet", derandomize=True, deadline=None, database=None)
settings.load_profile("ratchet")
