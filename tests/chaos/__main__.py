"""`make chaos`: faults of all kinds upon exact and relaxed runs, or peers, and what is left of them, as a table."""

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.page import RESULTS, table, write_page
from tests.chaos.sitting import MODES, STEPS, sit

KEEP = Path(__file__).parents[2] / "results" / "chaos"


def main(arguments: Sequence[str] | None = None) -> int:
    """Does a seed's soak, and keeps what is found; 1 if anything was lost, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=110, help="in all, as many upon runs of each mode")
    parser.add_argument("--modes", nargs="+", choices=STEPS, default=MODES, help="of the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where seed-SEED.json and the page go")
    parser.add_argument("--keep", type=Path, help="the seed's own folder, until it is done: its data and its runs")
    parser.add_argument("--page", action="store_true", help="only make the page anew from the seeds that are there")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    if options.page:
        write_page(options.results)
        return 0
    name = f"seed-{options.seed}" if [*options.modes] == [*MODES] else f"{'-'.join(options.modes)}-seed-{options.seed}"
    place = (options.keep or KEEP / name).resolve()
    place.mkdir(parents=True, exist_ok=True)
    # Whoever is started in the background ignores Ctrl-C, and so would every launcher that we interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = sit(place, options.seed, options.faults, options.modes)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    found.save(options.results / f"{name}.json")
    write_page(options.results)
    print("\n".join(table([found])))
    if found.is_whole:
        shutil.rmtree(place)
        return 0
    done = place.with_name(f"{place.name}-done")  # to look at; the next soak of this seed begins anew
    shutil.rmtree(done, ignore_errors=True)
    place.rename(done)
    print(f"Not everything was survived. The runs, and what they said: {done}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
