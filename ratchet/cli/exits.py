"""What the command's exit code says."""

EXIT_FAILED, EXIT_INPUT = 1, 2
