"""A small package as somebody else might write it: what `ratchet bugs` is tested on."""
