"""A data set of generated thorax CTs with lungs and tumours, written as a Medical Segmentation Decathlon folder."""

from __future__ import annotations

from pipeline.data.phantom.settings import PhantomSettings
from pipeline.data.phantom.write import write_phantom_lung

__all__ = ["PhantomSettings", "write_phantom_lung"]
