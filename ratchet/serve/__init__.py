"""An endpoint that speaks OpenAI's API over an engine of ours. `app.build_app` makes it; the command line runs it."""
