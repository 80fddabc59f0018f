"""Environments: they make tasks and judge attempts. `table.build_environment` opens one by name."""
