"""A data set in numbers: voxel sizes, intensities and classes, kept beside what is trained on it."""

from __future__ import annotations

from pipeline.data.fingerprint.collect import fingerprint_dataset, write_fingerprint
from pipeline.data.fingerprint.describe import describe
from pipeline.data.fingerprint.drift import Drift, find_drift
from pipeline.data.fingerprint.limits import DriftSettings
from pipeline.data.fingerprint.model import FINGERPRINT_FILE, Fingerprint, FingerprintSettings

__all__ = [
    "FINGERPRINT_FILE",
    "Drift",
    "DriftSettings",
    "Fingerprint",
    "FingerprintSettings",
    "describe",
    "find_drift",
    "fingerprint_dataset",
    "write_fingerprint",
]
