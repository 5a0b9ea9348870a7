"""Sweeps: trials of one experiment with drawn settings, each a job, and what they say in the end."""
