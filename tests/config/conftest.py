"""A small configuration tree and its schema, for tests of the machinery alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "train.yaml": """
# Train:  python -m pipeline
defaults:
  - network: unet
  - optimizer: sgd
  - folds: kfold
  - _self_
  - optional experiment: null
name: plain
seed: 0
rate: 0.1
output: null
trust: []
tracking: {uri: null}
derived: {channels: null}
""",
    "network/unet.yaml": """
# U-Net
_target_: monai.networks.nets.UNet
spatial_dims: 3
in_channels: ${derived.channels}
out_channels: 2
channels: [4, 8]
strides: [2]
""",
    "network/cnn.yaml": """
# Dense net
_target_: monai.networks.nets.DenseNet121
spatial_dims: 3
in_channels: ${derived.channels}
out_channels: 2
""",
    "optimizer/sgd.yaml": """
# SGD
_target_: torch.optim.SGD
_partial_: true
lr: ${rate}
""",
    "folds/kfold.yaml": """
# Folds
count: 5
run: null
""",
    "experiment/small.yaml": """
# @package _global_
# Small:  python -m pipeline experiment=small
defaults:
  - override /network: cnn
name: small
network:
  growth_rate: 8
""",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")
    return folder


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., Path]:
    """``conf({"experiment/x.yaml": text})``: a folder of configurations with these files added or replaced."""

    def make(changes: dict[str, str] | None = None) -> Path:
        return write(tmp_path / "conf", FILES | (changes or {}))

    return make
