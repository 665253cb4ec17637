"""Run schedules outside pytest, or replay one with its trace: `python -m tests.simulation --seed 7`."""

import argparse
import sys

from tests.simulation.runner import WORLDS, SimulationFailure, replay, run_schedules


def main() -> int:
    """0: every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Random schedules, with every invariant checked.")
    parser.add_argument("--world", choices=sorted(WORLDS), default="pools")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; alone: replay this one, with its trace")
    parser.add_argument("--schedules", type=int, default=0, help="how many schedules to run, from this seed on")
    arguments = parser.parse_args()
    try:
        if arguments.schedules:
            run_schedules(arguments.world, arguments.schedules, arguments.seed)
            print(f"{arguments.schedules} schedules: every invariant held")
        else:
            print("\n".join(replay(arguments.world, arguments.seed)))
    except SimulationFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
