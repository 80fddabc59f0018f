"""Published policy-gradient methods as values: numbers in, numbers out. No config, no devices, no logging."""
