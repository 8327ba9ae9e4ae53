"""How fast every hot path is, measured beside the peers: `make bench`, or `python -m tests.benchmarks --help`."""
