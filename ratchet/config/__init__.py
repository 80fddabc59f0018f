"""What the user asked for: frozen values read from TOML. Imports no torch; nothing ever writes to a config."""
