"""How far the journal has been sent, and which MLflow runs it went to."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.tracking.secrets import mask

log = logging.getLogger(__name__)

SENT_FILE = "sent.json"


@dataclass
class Sent:
    """Kept beside the journal, replaced atomically after each step.

    It holds for one store: with another address, or a store that has lost the runs, everything is sent again.
    """

    path: Path
    uri: str
    experiment_id: str | None = None
    offset: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, uri: str, journal_size: int) -> Sent:
        """The recorded position, or the beginning when nothing usable is recorded for this store."""
        fresh = cls(path, mask(uri))
        try:
            sent = cls(path=path, **json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return fresh
        except (ValueError, TypeError):
            log.warning("%s is damaged; everything is sent again, nothing is recorded twice", path)
            return fresh
        return sent if sent.uri == fresh.uri and 0 <= sent.offset <= journal_size else fresh

    @staticmethod
    def last_uri(path: Path) -> str | None:
        """The store that was used last, without its password; None when nothing is recorded."""
        uri = _recorded(path, "uri")
        return uri if isinstance(uri, str) else None

    @staticmethod
    def runs_in(path: Path) -> dict[str, str]:
        """The MLflow runs by key that are recorded there, none where nothing is."""
        runs = _recorded(path, "runs")
        return runs if isinstance(runs, dict) else {}

    def save(self) -> None:
        """Replace the file so that a crash leaves the old or the new content, never a part."""
        content = asdict(self)
        del content["path"]
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def reset(self) -> None:
        """Back to the beginning of the journal."""
        self.experiment_id = None
        self.offset = 0
        self.runs = {}
        self.refused = []


def _recorded(path: Path, name: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, TypeError, KeyError):
        return None
