"""Networks that MONAI lacks; every other one is MONAI's, named in YAML."""

from __future__ import annotations

from pipeline.networks.cnn import CNN
from pipeline.networks.padding import PadToMultiple
from pipeline.networks.resenc import ResidualEncoderUNet
from pipeline.networks.unet import UNet
from pipeline.networks.vit import VisionTransformer

__all__ = ["CNN", "PadToMultiple", "ResidualEncoderUNet", "UNet", "VisionTransformer"]
