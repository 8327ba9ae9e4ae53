"""The command `issgd`, as which `python -m issgd_cli` runs, too: what must be so before anything else is imported."""

import os
import sys


def main() -> None:
    """Runs the command line; whoever interrupts it while it is still importing is answered at once."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us has it ignored
        signal.signal(signal.SIGINT, end_at_once)

    from issgd_cli.cli import main as run

    run()


def end_at_once(number: int, frame: object) -> None:
    """For a signal that finds nothing to tidy up. No exception: one that is raised within an import may get lost."""
    try:
        os.write(2, b"issgd: interrupted\n")
    finally:
        os._exit(128 + number)


def leave_current_folder() -> None:
    """`python -m` looks for modules there first: a random.py of the user's would stand in for Python's own."""
    try:
        here = os.getcwd()
    except OSError:  # it has been removed
        here = ""
    if not sys.flags.safe_path and sys.path[0] in ("", here):
        del sys.path[0]


if __name__ == "__main__":
    leave_current_folder()
    main()
