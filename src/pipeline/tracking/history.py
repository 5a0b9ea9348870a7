"""What a journal already holds when its folder is opened again."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.tracking.journal import Journal


@dataclass
class History:
    """The identity of the runs, their parameters and metric values, and which of them have no end."""

    identity: str | None = None
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    open_runs: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, journal: Journal) -> History:
        """Read the whole journal. Metric values are kept as ``repr``, so that NaN equals NaN."""
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
                values = history.metrics.setdefault(key, {})
                values.update({(name, event["step"]): repr(value) for name, value in event["values"].items()})
            elif event["event"] == "end" and key in history.open_runs:
                history.open_runs.remove(key)
        return history
