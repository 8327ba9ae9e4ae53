"""The paper's figures and table, drawn from traces: one file a figure, each with load() and draw(axes).

`outputs` writes them all. Importing it imports matplotlib, which takes a second: import it where it is needed.
"""
