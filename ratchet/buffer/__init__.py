"""From groups to batches: an experience buffer on disk, fifo or replay, whose choices a resumed run repeats."""
