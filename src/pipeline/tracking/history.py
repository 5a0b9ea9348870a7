"""What a journal already holds when its folder is opened again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.tracking.journal import EVENTS_FILE, Journal, first_event


@dataclass
class History:
    """The identity of the runs, their parameters, names and steps of their metrics, and which of them have no end."""

    identity: str | None = None
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    open_runs: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, journal: Journal) -> History:
        """Read the whole journal."""
        history = cls()
        for event in journal:
            key = event.get("run", "")
            if event["event"] == "start":
                history.identity = history.identity or event["id"]
                known = history.params.setdefault(key, {})
                known.update(event["params"])
                if key not in history.open_runs:
                    history.open_runs.append(key)
            elif event["event"] == "metrics":
                points = history.metrics.setdefault(key, set())
                points.update((name, event["step"]) for name in event["values"])
            elif event["event"] == "end" and key in history.open_runs:
                history.open_runs.remove(key)
        return history


def identity_of(folder: Path) -> str | None:
    """The identity of the journal in a ``tracking`` folder, None where none has begun."""
    first = first_event(folder / EVENTS_FILE)
    return str(first["id"]) if first is not None and "id" in first else None
