"""What each user of a server of ours may do; a peer is a worker here, and a parameter server an owner.

Nothing else, so CONFIG, DEBUG, FLUSHALL, KEYS, EVAL, SHUTDOWN and whatever a later server invents are off. A worker
runs the scripts that the owner has loaded, which may do what a worker may.
"""

KEYS = "~issgd:*"
WORKER_COMMANDS = [
    *("ping", "info", "time", "get", "getrange", "set", "setrange", "hget", "hset", "expire", "evalsha"),
    "hsetnx",  # a peer's number
    *("multi", "exec"),  # a peer reads the table at one instant
]
OWNER_COMMANDS = [*WORKER_COMMANDS, "hdel", "hkeys", "hstrlen", "unlink", "scan", "script|load"]
WORKER_KEYS = [
    *(f"%R~issgd:*:{key}" for key in ("start", "layout", "description", "finished", "stop", "p:*")),
    *(f"%RW~issgd:*:{split}:*" for split in ("train", "valid", "test")),
    *(f"%RW~issgd:*:{key}" for key in ("g:*", "contributions", "contributions:*")),  # of peers
    *(f"%W~issgd:*:{key}" for key in ("status", "events")),
]


def allowed(commands: list[str]) -> str:
    """These commands, in the words of ACL rules."""
    return " ".join(f"+{command}" for command in commands)
