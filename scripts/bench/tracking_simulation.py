"""A sweep and its tracking server, event by event: workers that train, trackers that send, one queue of calls.

A call that is not answered within 30 s is given up by the client, and done by the server nevertheless. Pauses and
intervals are those of ``pipeline.tracking``, by its own functions.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tracking_costs import Costs

from pipeline.tracking.background import FIRST_PAUSE_S, GATHER_S, LONGEST_PAUSE_S, gather_s, pause_s
from pipeline.tracking.mlflow_store import METRICS_PER_CALL, VALUES_PER_CALL

TIMEOUT_S = 30.0  # MLFLOW_HTTP_REQUEST_TIMEOUT as pipeline.tracking sets it
POINT_BYTES = 95  # of a request with many points, as JSON


@dataclass(frozen=True)
class Sweep:
    """What is trained and recorded. Defaults: short trials, as a sweep has them, with everything that a run records."""

    trials: int = 1000
    folds: int = 5
    clients: int = 200
    start_s: float = 60.0  # within which all workers have begun
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

    def __init__(self, clock: Clock, server: Server, design: Design, costs: Costs, seed: int) -> None:
        self.clock = clock
        self.server = server
        self.costs = costs
        self.design = design
        self.draws = random.Random(seed)
        self.journal: deque[Call] = deque()
        self.busy = False
        self.failures = 0
        self.gather = GATHER_S
        self.began = 0.0

    def append(self, calls: Iterable[Call]) -> None:
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
            points = call.points + more.points
            call = Call("metrics", self.costs.points(points), call.bytes + more.bytes, points)
        return call

    def pause(self) -> None:
        self.failures += 1
        seconds = min(FIRST_PAUSE_S * 2.0 ** (self.failures - 1), LONGEST_PAUSE_S)
        if self.design.jitter:
            seconds = pause_s(self.failures, self.draws.random())
        self.clock.at(self.clock.now + seconds, self.next)


class Worker:
    """Trains fold after fold of one trial after the other."""

    def __init__(self, sweep: Sweep, trials: Iterator[int], tracker: Tracker, known: Counter[str]) -> None:
        self.sweep = sweep
        self.trials = trials
        self.tracker = tracker
        self.clock = tracker.clock
        self.costs = tracker.costs
        self.known = known

    def next_trial(self) -> None:
        if next(self.trials, None) is not None:
            self.tracker.append(self.begin())
            self.next_fold(self.sweep.folds)

    def next_fold(self, left: int) -> None:
        if left == 0:
            self.tracker.append(self.end())
            self.next_trial()
            return
        self.tracker.append(self.begin())
        seconds = self.sweep.fold_s * self.tracker.draws.uniform(0.8, 1.2)
        for epoch in range(1, self.sweep.epochs + 1):
            time_s = self.clock.now + seconds * epoch / self.sweep.epochs
            self.clock.at(time_s, lambda: self.tracker.append(self.epoch()))
        self.clock.at(self.clock.now + seconds, lambda: self.fold_ends(left - 1))

    def fold_ends(self, left: int) -> None:
        self.tracker.server.outcome.trained_s = self.clock.now
        sweep, costs = self.sweep, self.costs
        sizes = [sweep.picture_bytes] * sweep.pictures + [sweep.checkpoint_bytes] * sweep.checkpoints
        self.tracker.append(Call("artifacts", costs.file(size) + costs.get, size) for size in sizes)
        self.tracker.append(self.end())
        self.next_fold(left)

    def begin(self) -> Iterator[Call]:
        self.known["runs"] += 1
        yield Call("search", self.costs.searching(self.known["runs"]), 500)
        yield Call("create run", self.costs.create, 5000)
        for _ in range(-(-self.sweep.params // VALUES_PER_CALL)):
            yield Call("params", self.costs.params, 2000)

    def epoch(self) -> Iterator[Call]:
        count = self.sweep.metrics
        if self.tracker.design.batching:
            yield Call("metrics", self.costs.points(count), 500 + POINT_BYTES * count, count)
        else:
            for _ in range(count):
                yield Call("metrics", self.costs.points(1), 500 + POINT_BYTES, 1)

    def end(self) -> Iterator[Call]:
        yield Call("update run", self.costs.update, 500)
        yield Call("search", self.costs.searching(self.known["runs"]), 500)


def simulate(
    sweep: Sweep, design: Design, costs: Costs, cores: int, outage: tuple[float, float] = (0.0, 0.0)
) -> Outcome:
    """The whole sweep."""
    clock, outcome = Clock(), Outcome()
    trials, known = iter(range(sweep.trials)), Counter[str]()
    serving = Server(clock, cores, outage, outcome)
    for number in range(sweep.clients):
        tracker = Tracker(clock, serving, design, costs, number)
        worker = Worker(sweep, trials, tracker, known)
        clock.at(tracker.draws.uniform(0, sweep.start_s), worker.next_trial)
    clock.run()
    return outcome
