"""What went wrong in a run: findings with evidence, from the series of a log. See `diagnose`."""
