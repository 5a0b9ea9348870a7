"""Which options of sbatch a configuration may set: those that choose resources, not those that choose what runs.

A configuration may come from a stranger: ``export=LD_PRELOAD=...`` or a line break in a value would run foreign code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.config.nearest import did_you_mean
from pipeline.errors import UserError

NAMED = ("account", "partition", "qos")
ALLOWED = (
    *("acctg-freq", "batch", "begin", "cluster-constraint", "clusters", "comment", "constraint", "contiguous"),
    *("core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "dependency"),
    *("distribution", "exclude", "exclusive", "extra-node-info", "gpu-bind", "gpu-freq", "gpus", "gpus-per-task"),
    *("gres", "gres-flags", "hint", "hold", "licenses", "mail-type", "mail-user", "mem-bind", "mem-per-cpu"),
    *("mem-per-gpu", "mincpus", "network", "nice", "no-kill", "nodelist", "ntasks-per-core", "ntasks-per-gpu"),
    *("ntasks-per-socket", "overcommit", "oversubscribe", "power", "prefer", "priority", "profile", "reboot"),
    *("reservation", "sockets-per-node", "spread-job", "switches", "thread-spec", "threads-per-core", "time-min"),
    *("tmp", "use-min-nodes", "wait-all-nodes", "wckey"),
)
PLAIN = re.compile(r"[\w@%+=:,./&|*\[\]() -]*")


def check_options(options: Mapping[str, str | int | bool]) -> None:
    """Raise UserError for an option that is not allowed or a value that is not plain text."""
    for name, value in options.items():
        if name not in NAMED and name not in ALLOWED:
            cause = f"launch.engine.sbatch: {name} is no option of sbatch that a configuration may set"
            others = "the others are read by sbatch from the environment: SBATCH_ and the option's name"
            raise UserError(cause, *filter(None, (did_you_mean(name, list(ALLOWED)), others)))
        if not PLAIN.fullmatch(str(value)):
            where = name if name in NAMED else f"sbatch.{name}"
            raise UserError(f"launch.engine.{where}: {value!r} holds characters that no option of sbatch needs")
