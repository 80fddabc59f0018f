"""One file per framework: what its keys mean, as data. Which keys there are was learned from logs and sources."""
