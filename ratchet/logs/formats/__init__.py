"""One file per form a log may have: each turns its rows into columns and knows nothing of frameworks."""
