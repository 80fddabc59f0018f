"""Training logs of any framework, and our own runs, read into one form; `read.read_log` is the way in."""
