"""Preprocessed cases on disk: computed once, shared by folds, runs and processes; a patch reads only its own bytes."""

from pipeline.data.store.settings import StoreSettings
from pipeline.data.store.store import Store

__all__ = ["Store", "StoreSettings"]
