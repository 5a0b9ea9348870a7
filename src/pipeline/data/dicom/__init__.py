"""DICOM folders: series found, checked and turned into volumes; contours and segmentations into masks."""

from pipeline.data.dicom.importing import ImportResult, import_dicom
from pipeline.data.dicom.settings import DicomSettings

__all__ = ["DicomSettings", "ImportResult", "import_dicom"]
