"""Where the actors meet: parameters one way, one float an example the other."""

from issgd_cli.database.protocol import Database, Document, Topic
from issgd_cli.database.records import SPLITS, Chunk, ChunkScores, Layout, Published, Records, Split, Weights

__all__ = [
    "SPLITS",
    "Chunk",
    "ChunkScores",
    "Database",
    "Document",
    "Layout",
    "Published",
    "Records",
    "Split",
    "Topic",
    "Weights",
]
