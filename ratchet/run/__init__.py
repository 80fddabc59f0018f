"""A run: the schedule, the two loops, checkpoints, the gate before the first step, and what is said on the way."""
