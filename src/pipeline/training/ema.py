"""Exponential moving average of the weights, with a warm-up."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.callbacks import WeightAveraging


class WarmEMA(WeightAveraging):
    """Lightning's weight averaging with decay ``min(decay, (1 + n) / (10 + n))`` after n updates.

    The warm-up (as in TensorFlow's ExponentialMovingAverage) forgets the random start quickly, which short trainings
    need. Validation, checkpoints' ``state_dict`` and predictions use the averaged weights.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, updates: Any) -> None:
            n = float(updates)
            weight = 1 - min(decay, (1 + n) / (10 + n))
            floats = [(a, c) for a, c in zip(averaged, current, strict=True) if a.is_floating_point()]
            if floats:
                torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], weight)
            for a, c in zip(averaged, current, strict=True):
                if not a.is_floating_point():
                    a.copy_(c)

        super().__init__(use_buffers=True, multi_avg_fn=average)
