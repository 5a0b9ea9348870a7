"""Whether a data set can be trusted: every file read, every rule applied, before anything is trained on it."""

from __future__ import annotations

from pipeline.data.integrity.check import check_dataset
from pipeline.data.integrity.result import CaseRecord, CheckResult, CheckSettings, Fault

__all__ = ["CaseRecord", "CheckResult", "CheckSettings", "Fault", "check_dataset"]
