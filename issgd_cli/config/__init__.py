"""The configuration of a run: sections and keys, their defaults (paper-a's) and their limits.

Sources of the values: the paper, or, where it is silent, the authors' original code.
"""
