"""``python -m ratchet``: the command line, for launchers that start a module (``torchrun -m ratchet train ...``)."""

from ratchet.cli.main import main

main()
