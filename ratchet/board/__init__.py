"""The board: one local page over a folder of runs and foreign logs, and its copy as a folder of files.

It reads run folders and training logs, and changes nothing in them but two things: an index of the rollouts' texts
(``board.sqlite``), and requests to a run that is going on (``control.jsonl``).
"""
