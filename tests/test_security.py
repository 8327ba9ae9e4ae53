"""SECURITY.md keeps its word: the tests that it names exist."""

import re
from pathlib import Path

from issgd_cli.database import permissions

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text()


def test_every_test_that_is_named_exists_in_security() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", SECURITY))
    assert len(named) > 30
    assert not {name for name in named if f"def {name}(" not in tests}


def test_what_it_says_of_commands_is_so() -> None:
    for name in ("OWNER_COMMANDS", "WORKER_COMMANDS", "WORKER_KEYS"):
        assert name in SECURITY
        assert getattr(permissions, name)
    off = set(re.findall(r"\b[A-Z]{3,}\b", SECURITY.partition("no CONFIG")[2].partition("...")[0])) | {"CONFIG"}
    assert len(off) > 8
    assert not {command.lower() for command in off} & set(permissions.OWNER_COMMANDS)
