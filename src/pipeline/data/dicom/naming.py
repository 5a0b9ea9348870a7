"""Names of cases and patients in the output: hashes, unless the user keeps the ids."""

from __future__ import annotations

import hashlib
import re

LONGEST = 60  # characters of a name made from an id


class Names:
    """``keep_ids``: ids and UIDs as they are (made safe where they become file names); else hashes with ``salt``."""

    def __init__(self, keep_ids: bool, salt: str | None) -> None:
        self.keep_ids = keep_ids
        self.salt = salt or ""

    def digest(self, kind: str, text: str, length: int) -> str:
        """Hexadecimal digits of a hash; those of another ``kind`` or salt never match."""
        said = "\0".join([kind, self.salt, text])
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:length]

    def patient(self, patient_id: str) -> str:
        """The patient's name in the table."""
        return " ".join(patient_id.split()) if self.keep_ids else "P" + self.digest("patient", patient_id, 12)

    def uid(self, uid: str) -> str:
        """The name of a series or study in the table."""
        return " ".join(uid.split()) if self.keep_ids else self.digest("uid", uid, 16)

    def case(self, patient_id: str, modality: str, uid: str) -> str:
        """A case id that is a file name: patient, modality and the hash of the series or study."""
        return f"{safe(self.patient(patient_id))}_{safe(modality)}_{self.digest('uid', uid, 8)}"


def safe(text: str) -> str:
    """Letters, digits, point, dash and underscore; all else becomes a dash, and no name begins with a point."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:LONGEST] or "x"
