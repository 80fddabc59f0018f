"""What runs inside a jail: the standard library and nothing else, for the rest of Ratchet is not there."""
