"""Scale on paper: a thousand trials of five folds on two hundred workers, one tracking server.

    python scripts/bench/tracking_scale.py [--trials 1000] [--folds 5] [--clients 200] [--cores 8] [--costs costs.json]

What a call costs the server is measured first, against a real one with PostgreSQL (or read from --costs, which an
earlier call wrote). Then the whole sweep is simulated; see tracking_simulation.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from tracking_costs import Costs, measure
from tracking_load import server
from tracking_simulation import Design, Outcome, Sweep, simulate


def shares(outcome: Outcome) -> dict[str, str]:
    """What the server's time goes to."""
    total = sum(outcome.cpu_s.values())
    return {kind: f"{seconds / total:.0%}" for kind, seconds in outcome.cpu_s.most_common()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--cores", type=int, default=8, help="of the server")
    parser.add_argument("--costs", type=Path, help="measured costs: read where the file is there, else written")
    given = parser.parse_args()
    if given.costs and given.costs.is_file():
        costs = Costs(**json.loads(given.costs.read_text()))
    else:
        with server(workers=1, artifacts="folder") as folder:
            costs, waits = measure(folder)
        print("a call as a client sees it, ms:", {name: round(1000 * wait, 1) for name, wait in waits.items()})
        if given.costs:
            given.costs.write_text(json.dumps(asdict(costs), indent=1))
    print("CPU of the server, ms:", {name: float(f"{1000 * cost:.3g}") for name, cost in asdict(costs).items()})
    sweep = Sweep(given.trials, given.folds, given.clients)
    print(json.dumps(asdict(sweep)))
    away = (1800.0, 2400.0)
    cases = {
        "as designed": (sweep, Design(), (0.0, 0.0)),
        "a call for each metric": (sweep, Design(batching=False), (0.0, 0.0)),
        "tracking.checkpoints=false": (replace(sweep, checkpoints=0), Design(), (0.0, 0.0)),
        "server away for 10 min": (sweep, Design(), away),
        "away, pauses in step": (sweep, Design(jitter=False), away),
        "folds of 30 s": (replace(sweep, fold_s=30.0), Design(), (0.0, 0.0)),
        "folds of 30 s, 1 s gathered": (replace(sweep, fold_s=30.0), Design(patient=False), (0.0, 0.0)),
    }
    for name, (what, design, outage) in cases.items():
        outcome = simulate(what, design, costs, given.cores, outage)
        print(f"\n{name}\n  {json.dumps(outcome.line(given.cores))}\n  time of the server: {shares(outcome)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
