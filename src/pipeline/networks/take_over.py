"""A batch norm of another kind in the place of one."""

from __future__ import annotations

from typing import TypeVar

from torch.nn.modules.batchnorm import _BatchNorm

Kind = TypeVar("Kind", bound=_BatchNorm)


def take_over(layer: _BatchNorm, kind: type[Kind]) -> Kind:
    """A layer of ``kind`` with the settings of ``layer``, and its parameters and buffers themselves."""
    other = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    for name, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        setattr(other, name, value)
    return other.train(layer.training)
