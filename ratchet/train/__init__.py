"""From a batch to the next weights: flatten, annotate, cut, step."""
