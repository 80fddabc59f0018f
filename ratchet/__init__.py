"""Ratchet: reinforcement-learning post-training for language models that you can see through.

Importing this package is cheap: it loads neither torch nor pydantic. The rooms are imported by name
(``from ratchet.train.trainer import Trainer``); ``docs/architecture.md`` is the map.
"""

__version__ = "0.1.0"
