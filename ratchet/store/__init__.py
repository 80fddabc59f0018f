"""One run is one folder: typed append and read. Readers never lock and need neither torch nor a running trainer."""
