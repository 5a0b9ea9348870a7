"""What the machine offers: threads, bf16, deterministic algorithms."""

from __future__ import annotations

import os
import warnings
from typing import Literal

import torch


def chosen_threads(threads: int | None, processes: int = 1) -> int:
    """The CPU threads of this process; None divides the cores it may use by ``processes``."""
    if threads is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        threads = max(1, cores // processes)
    return threads


def accelerator_kind(accelerator: str) -> Literal["cpu", "cuda"]:
    """Which device ``auto``, ``cpu`` or ``gpu`` means here."""
    if accelerator == "cpu":
        return "cpu"
    return "cuda" if accelerator == "gpu" or torch.cuda.is_available() else "cpu"


def computes_bf16(device: str) -> bool:
    """Whether the device multiplies in bfloat16 in hardware (AVX512-BF16 or AMX; Ampere or newer)."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def choose_precision(precision: str, device: str) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name for ``auto``, ``32`` or ``bf16``."""
    if precision == "bf16" or (precision == "auto" and computes_bf16(device)):
        return "bf16-mixed"
    return "32-true"


def use_reproducible(reproducible: bool | str, device: str) -> None:
    """``strict``: deterministic algorithms, an error where there is none; ``fast``: the fastest.

    True: on a CPU deterministic algorithms, a warning (once) where there is none; on a GPU ``fast``.
    """
    deterministic = reproducible == "strict" or (reproducible is True and device == "cpu")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        warnings.filterwarnings("once", message=".*does not have a deterministic implementation.*")
    torch.use_deterministic_algorithms(deterministic, warn_only=reproducible is True)
    if device == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
        torch.set_float32_matmul_precision("highest" if deterministic else "high")  # TF32: 10 bits of a factor
    # Nothing here reads memory that it has not written, and filling it with NaN takes 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
