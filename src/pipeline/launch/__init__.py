"""Launching: commands as jobs, on this machine or on a cluster, each started again while retries last."""

from pipeline.launch.local import Local
from pipeline.launch.ray import Ray
from pipeline.launch.slurm import Slurm

__all__ = ["Local", "Ray", "Slurm"]
