"""Packed batches that attention is tried on: lengths of their segments, and each one's parent."""

LAYOUTS = {
    "one segment": ([37], [-1]),
    "one token": ([1], [-1]),
    "ragged": ([5, 1, 64, 33, 2, 17], [-1] * 6),
    "shared prompts": ([10, 7, 1, 33, 40, 3, 32], [-1, 0, 0, 0, -1, 4, 4]),
    "parent and lone segments mixed": ([1, 9, 12, 31, 5], [-1, -1, 0, 1, 0]),
    "empty segments": ([0, 4, 3, 0], [-1, -1, 1, 1]),
    "prompt longer than a panel": ([100, 70, 50], [-1, 0, 0]),
}
