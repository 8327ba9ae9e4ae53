"""Experiments: what they consist of, and their runs, one after the other or several at a time."""
