"""The command line: argv to config to run. Nothing is computed here."""
