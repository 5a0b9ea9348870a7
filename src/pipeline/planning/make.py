"""From a fingerprint and a budget to a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import __version__
from pipeline.config.schema_planning import Planning, Regime
from pipeline.data.fingerprint import Fingerprint
from pipeline.errors import UserError
from pipeline.planning.budget import Budget
from pipeline.planning.classification import classification_plan
from pipeline.planning.document import Chosen, Node, plain, text_of
from pipeline.planning.measured import times
from pipeline.planning.segmentation import segmentation_plan

HASH_LENGTH = 16


@dataclass(frozen=True)
class Plan:
    """A plan of one data set for one budget."""

    fingerprint: Fingerprint
    budget: Budget
    tree: Mapping[str, Node]

    def text(self, command: str) -> str:
        """The configuration file; ``command``: the arguments that use it. The same for the same data and budget."""
        data = self.fingerprint
        group, digest = data.overall, data.data_hash[:HASH_LENGTH] or "unknown"
        kind = f"{data.task} in {data.spatial_dims}D"
        header = [
            "@package _global_",
            f"Plan for {data.name}, {kind}:  python -m pipeline {command}",
            f"Data: {group.cases} cases of {group.patients} patients, hash {digest}.",
            f"Budget: {self.budget.words}. Rules: conf/planning. Written by medical-pipeline {__version__}.",
            "Edit what you like; experiments and the command line win over this file.",
            "It is found by its name in a folder called plan: that of conf/, or of a folder given by --config-dir.",
        ]
        return text_of(header, self.tree)

    @property
    def values(self) -> dict[str, Any]:
        """The configuration without its reasons."""
        found: dict[str, Any] = plain(self.tree)
        return found

    @property
    def line(self) -> str:
        """The plan in one line."""
        values = self.values
        choices = {key.removeprefix("override /"): name for entry in values["defaults"] for key, name in entry.items()}
        spacing, size = (
            values["transforms"]["spacing"],
            values["sampling"]["patch_size"] or values["transforms"]["size"],
        )
        length = values["schedule"]["budget"] or f"{values['schedule']['epochs']} epochs"
        parts = [
            f"spacing {times(spacing)} mm" if spacing else "",
            f"{'patch' if values['sampling']['patch_size'] else 'image'} {times(size)}",
            f"batch {values['sampling']['batch_size']}",
            f"{choices['network']} of width {values['network']['width']}",
            f"{choices['optimizer']} {values['optimizer']['lr']:g}",
            length,
        ]
        return ", ".join(part for part in parts if part)


def choices_text(task: str, rules: Planning, budget: Budget) -> str:
    """A plan that holds what is known before any data are read: which network, loss, optimizer and schedule.

    Raises UserError where no regime fits the budget.
    """
    regime: Regime
    if task == "classification":
        regime, network, loss = budget.regime(rules.classification_regimes), "cnn", "cross_entropy"
    else:
        regime, network, loss = budget.regime(rules.segmentation_regimes), "unet", "dice_ce"
    known = {"network": network, "loss": loss, "optimizer": regime.optimizer, "schedule": regime.schedule}
    choices = [{f"override /{group}": Chosen(option, regime.words)} for group, option in known.items()]
    return text_of(["@package _global_", "What a plan chooses whatever the data"], {"defaults": choices})


def make_plan(fingerprint: Fingerprint, rules: Planning, budget: Budget) -> Plan:
    """Plan a data set. Raises UserError where nothing was measured or no plan fits the budget."""
    if not fingerprint.overall.grids or not fingerprint.overall.intensities:
        raise UserError(f"{fingerprint.name}: no image was measured", "see what python -m pipeline check says")
    planned = classification_plan if fingerprint.task == "classification" else segmentation_plan
    return Plan(fingerprint, budget, planned(fingerprint, rules, budget))
