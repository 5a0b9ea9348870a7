"""Optimizers that torch lacks, named in YAML like its own."""

from __future__ import annotations

from pipeline.optimizers.muon import Muon as Muon
