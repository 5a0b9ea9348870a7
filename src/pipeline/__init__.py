"""Configurable experiments on medical images: from a folder of scans to a cross-validated, recorded result."""

__version__ = "0.1.0"
