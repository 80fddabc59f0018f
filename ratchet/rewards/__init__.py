"""Rewards: what an answer is worth, and how code that may hang or lie is asked about it."""
