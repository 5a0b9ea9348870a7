"""Tracking: written to the run folder first, then sent to MLflow."""

from pipeline.tracking.provenance import data_hash, provenance, provenance_tags
from pipeline.tracking.run_folder import find_run_folder
from pipeline.tracking.sync import SyncReport, sync
from pipeline.tracking.tracker import Status, Tracker
from pipeline.tracking.uri import open_page_command, store_uri

__all__ = [
    "Status",
    "SyncReport",
    "Tracker",
    "data_hash",
    "find_run_folder",
    "open_page_command",
    "provenance",
    "provenance_tags",
    "store_uri",
    "sync",
]
