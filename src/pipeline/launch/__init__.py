"""Where jobs run: each engine starts fresh processes and says how they ended."""

from pipeline.launch.ray import Ray
from pipeline.launch.slurm import Slurm

__all__ = ["Ray", "Slurm"]
