"""Generation. `engines.local` runs the project's own decoder in this process; `engines.scripted` is the fake."""
