"""A batch norm of another kind in the place of one."""

from __future__ import annotations

from typing import TypeVar

from torch.nn.modules.batchnorm import _BatchNorm

Kind = TypeVar("Kind", bound=_BatchNorm)


def take_over(layer: _BatchNorm, kind: type[Kind]) -> Kind:
    """A layer of ``kind`` with the settings of ``layer``, and its parameters and buffers themselves."""
    tracks = layer.track_running_stats
    other = kind(layer.num_features, layer.eps, layer.momentum, affine=False, track_running_stats=tracks)
    other.affine = layer.affine
    for name in ("weight", "bias"):  # of which it may have the first alone
        other.register_parameter(name, getattr(layer, name))
    for name, value in layer.named_buffers(recurse=False):
        setattr(other, name, value)
    return other.train(layer.training)
