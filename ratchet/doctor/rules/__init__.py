"""The rules, by theme. Each is a pure function from evidence to findings; `table` lists them."""
