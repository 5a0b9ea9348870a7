"""Launching: commands as jobs, on this machine or on a cluster, each started again while retries last."""
