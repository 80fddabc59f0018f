"""Programs that run in a Python of their own, where other libraries are at home: nothing of Ratchet is there."""
