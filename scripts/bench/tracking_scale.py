"""Scale on paper: a thousand trials of five folds on two hundred workers, one tracking server.

    python scripts/bench/tracking_scale.py [--trials 1000] [--folds 5] [--clients 200] [--cores 8] [--costs costs.json]

What a call costs the server is measured first, against a real one with PostgreSQL (or read from --costs, which an earlier
call wrote). Then the whole sweep is simulated, event by event: each worker trains fold after fold, its tracker gathers
and sends as pipeline.tracking does (the pauses and intervals are computed by its own functions), and the server takes
calls in the order in which they come, one per core. A call that is not answered within 30 s is given up by the client and
done by the server nevertheless.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import statistics
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tracking_costs import Costs, measure
from tracking_load import server

from pipeline.tracking.background import GATHER_S, LONGEST_PAUSE_S, gather_s, pause_s
from pipeline.tracking.mlflow_store import METRICS_PER_CALL, VALUES_PER_CALL

TIMEOUT_S = 30.0  # MLFLOW_HTTP_REQUEST_TIMEOUT as pipeline.tracking sets it
POINT_BYTES = 95  # of a request with many points, as JSON


@dataclass(frozen=True)
class Sweep:
    """What is trained and recorded. Defaults: short trials, as a sweep has them, with everything that a run records."""

    trials: int = 1000
    folds: int = 5
    clients: int = 200
    fold_s: float = 300.0  # give or take a fifth
    epochs: int = 100
    metrics: int = 12  # of each epoch
    params: int = 160
    pictures: int = 6  # and small files of a fold, at its end
    picture_bytes: int = 60_000
    checkpoints: int = 2  # at the end of a fold
    checkpoint_bytes: int = 12_000_000

    @property
    def runs(self) -> int:
        return self.trials * (self.folds + 1)


@dataclass(frozen=True)
class Design:
    """How trackers behave."""

    batching: bool = True  # False: each metric is a call of its own, as log_metric does
    jitter: bool = True
    patient: bool = True  # gathers longer where the server is slow


@dataclass
class Call:
    kind: str
    cost_s: float
    bytes: float
    points: int = 0


@dataclass
class Outcome:
    """What the server and the clients went through."""

    calls: Counter[str] = field(default_factory=Counter)
    cpu_s: Counter[str] = field(default_factory=Counter)
    bytes: float = 0.0
    waits: list[float] = field(default_factory=list)
    given_up: int = 0
    refused: int = 0
    per_second: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0  # until everything is on the server
    trained_s: float = 0.0  # until the last fold was trained

    def line(self, cores: int) -> dict[str, float]:
        total = sum(self.calls.values())
        waits = sorted(self.waits)
        return {
            "calls": total,
            "calls_per_s": round(total / self.seconds, 1),
            "most_calls_in_1_s": max(self.per_second.values()),
            "gigabytes": round(self.bytes / 1e9, 1),
            "megabytes_per_s": round(self.bytes / 1e6 / self.seconds, 1),
            "server_busy": round(sum(self.cpu_s.values()) / cores / self.seconds, 3),
            "wait_median_s": round(statistics.median(waits), 3),
            "wait_99_percent_s": round(waits[int(0.99 * len(waits))], 2),
            "given_up_after_30_s": self.given_up,
            "connections_refused": self.refused,
            "all_there_after_the_last_fold_s": round(self.seconds - self.trained_s),
            "hours": round(self.trained_s / 3600, 2),
        }


class Clock:
    """Things to do at their time, in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time_s, next(self._number), action))

    def run(self) -> None:
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            action()


class Server:
    """Takes calls in turn, as many at a time as it has cores; is away in ``outage``."""

    def __init__(self, clock: Clock, cores: int, outage: tuple[float, float], outcome: Outcome) -> None:
        self.clock = clock
        self.free = cores
        self.outage = outage
        self.outcome = outcome
        self.waiting: deque[tuple[Call, Callable[[], None]]] = deque()

    def away(self) -> bool:
        return self.outage[0] <= self.clock.now < self.outage[1]

    def take(self, call: Call, answer: Callable[[], None]) -> None:
        self.outcome.calls[call.kind] += 1
        self.outcome.bytes += call.bytes
        self.outcome.per_second[int(self.clock.now)] += 1
        self.waiting.append((call, answer))
        self._next()

    def _next(self) -> None:
        if self.free and self.waiting:
            call, answer = self.waiting.popleft()
            self.free -= 1
            self.outcome.cpu_s[call.kind] += call.cost_s

            def done() -> None:
                self.free += 1
                answer()
                self._next()

            self.clock.at(self.clock.now + call.cost_s, done)


class Tracker:
    """The journal of one worker and the thread that sends it."""

    def __init__(self, clock: Clock, server: Server, design: Design, seed: int) -> None:
        self.clock = clock
        self.server = server
        self.design = design
        self.draws = random.Random(seed)
        self.journal: deque[Call] = deque()
        self.busy = False
        self.failures = 0
        self.gather = GATHER_S
        self.began = 0.0

    def append(self, calls: Iterator[Call]) -> None:
        self.journal.extend(calls)
        if not self.busy and self.journal:
            self.busy = True
            self.clock.at(self.clock.now + self.gather, self.send)

    def send(self) -> None:
        self.began = self.clock.now
        self.next()

    def next(self) -> None:
        if not self.journal:
            self.busy = False
            self.gather = gather_s(self.clock.now - self.began) if self.design.patient else GATHER_S
            return
        call = self.merged() if self.design.batching else self.journal.popleft()
        if self.server.away():
            self.server.outcome.refused += 1
            self.journal.appendleft(call)
            self.pause()
            return
        state = {"open": True}
        asked = self.clock.now

        def answer() -> None:
            if state["open"]:
                state["open"] = False
                self.failures = 0
                self.server.outcome.waits.append(self.clock.now - asked)
                self.server.outcome.seconds = self.clock.now
                self.next()

        def give_up() -> None:
            if state["open"]:
                state["open"] = False
                self.server.outcome.given_up += 1
                self.journal.appendleft(call)
                self.pause()

        self.clock.at(asked + TIMEOUT_S, give_up)
        self.server.take(call, answer)

    def merged(self) -> Call:
        """The first call, with the metrics that stand right behind it in the journal."""
        call = self.journal.popleft()
        while self.journal and call.kind == "metrics" == self.journal[0].kind:
            if call.points + self.journal[0].points > METRICS_PER_CALL:
                break
            more = self.journal.popleft()
            per_point = (more.cost_s - COST.batch) / more.points
            call = replace(
                call,
                points=call.points + more.points,
                cost_s=call.cost_s + per_point * more.points,
                bytes=call.bytes + more.bytes,
            )
        return call

    def pause(self) -> None:
        self.failures += 1
        seconds = min(2.0 ** (self.failures - 1), LONGEST_PAUSE_S)
        if self.design.jitter:
            seconds = pause_s(self.failures, self.draws.random())
        self.clock.at(self.clock.now + seconds, self.next)


COST: Costs


class Worker:
    """Trains fold after fold of one trial after the other."""

    def __init__(self, sweep: Sweep, trials: Iterator[int], tracker: Tracker, clock: Clock, known: Counter[str]) -> None:
        self.sweep = sweep
        self.trials = trials
        self.tracker = tracker
        self.clock = clock
        self.known = known
        self.draws = tracker.draws

    def next_trial(self) -> None:
        if next(self.trials, None) is None:
            return
        self.tracker.append(self.begin())
        self.next_fold(self.sweep.folds)

    def next_fold(self, left: int) -> None:
        if left == 0:
            self.tracker.append(self.end())
            self.next_trial()
            return
        self.tracker.append(self.begin())
        seconds = self.sweep.fold_s * self.draws.uniform(0.8, 1.2)
        for epoch in range(1, self.sweep.epochs + 1):
            self.clock.at(self.clock.now + seconds * epoch / self.sweep.epochs, lambda: self.tracker.append(self.epoch()))
        self.clock.at(self.clock.now + seconds, lambda: self.fold_ends(left - 1))

    def fold_ends(self, left: int) -> None:
        self.tracker.server.outcome.trained_s = self.clock.now
        files = [self.sweep.picture_bytes] * self.sweep.pictures + [self.sweep.checkpoint_bytes] * self.sweep.checkpoints
        self.tracker.append(Call("artifacts", COST.file(size) + COST.get, size) for size in files)
        self.tracker.append(self.end())
        self.next_fold(left)

    def begin(self) -> Iterator[Call]:
        self.known["runs"] += 1
        yield Call("search", COST.searching(self.known["runs"]), 500)
        yield Call("create run", COST.create, 5000)
        for _ in range(-(-self.sweep.params // VALUES_PER_CALL)):
            yield Call("params", COST.params, 2000)

    def epoch(self) -> Iterator[Call]:
        count = self.sweep.metrics
        if self.tracker.design.batching:
            yield Call("metrics", COST.points(count), 500 + POINT_BYTES * count, count)
        else:
            for _ in range(count):
                yield Call("metrics", COST.points(1), 500 + POINT_BYTES, 1)

    def end(self) -> Iterator[Call]:
        yield Call("update run", COST.update, 500)
        yield Call("search", COST.searching(self.known["runs"]), 500)


def simulate(sweep: Sweep, design: Design, cores: int, outage: tuple[float, float] = (0.0, 0.0)) -> Outcome:
    """The whole sweep; workers start within the first minute."""
    clock, outcome = Clock(), Outcome()
    trials, known = iter(range(sweep.trials)), Counter[str]()
    serving = Server(clock, cores, outage, outcome)
    for number in range(sweep.clients):
        tracker = Tracker(clock, serving, design, number)
        worker = Worker(sweep, trials, tracker, clock, known)
        clock.at(tracker.draws.uniform(0, 60), worker.next_trial)
    clock.run()
    return outcome


def shares(outcome: Outcome) -> dict[str, str]:
    """What the server's time goes to."""
    total = sum(outcome.cpu_s.values())
    return {kind: f"{seconds / total:.0%}" for kind, seconds in outcome.cpu_s.most_common()}


def main() -> int:
    global COST
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--cores", type=int, default=8, help="of the server")
    parser.add_argument("--costs", type=Path, help="measured costs: read where the file is there, else written")
    given = parser.parse_args()
    if given.costs and given.costs.is_file():
        COST = Costs(**json.loads(given.costs.read_text()))
    else:
        with server(workers=1, artifacts="folder") as folder:
            COST, waits = measure(folder)
        print("a call as a client sees it, ms:", {name: round(1000 * wait, 1) for name, wait in waits.items()})
        if given.costs:
            given.costs.write_text(json.dumps(asdict(COST), indent=1))
    print("CPU of the server, ms:", {name: float(f"{1000 * cost:.3g}") for name, cost in asdict(COST).items()})
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
        outcome = simulate(what, design, given.cores, outage)
        print(f"\n{name}\n  {json.dumps(outcome.line(given.cores))}\n  time of the server: {shares(outcome)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
