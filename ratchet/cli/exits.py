"""What the command's exit code says."""

EXIT_FAILED, EXIT_INPUT = 1, 2
EXIT_WARNING, EXIT_ERROR = 3, 4
"""The worst that ``ratchet doctor`` found."""
