"""Optimizer and length of a training: what the regime and the budget say."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.schema_planning import Regime
from pipeline.planning.budget import Budget
from pipeline.planning.document import Chosen, Node


def optimizer_section(regime: Regime, budget: Budget) -> Mapping[str, Node]:
    """The section ``optimizer``."""
    return {"lr": Chosen(regime.lr, f"highest learning rate of {regime.optimizer}: {regime.words}")}


def schedule_section(regime: Regime, budget: Budget) -> Mapping[str, Node]:
    """The section ``schedule``."""
    if budget.seconds is None:
        return {
            "budget": Chosen(None, "plan.budget=none: epochs decide"),
            "epochs": Chosen(
                regime.epochs, f"{regime.words}; nnU-Net trains 1000 epochs of 250 batches, whatever the data"
            ),
        }
    return {
        "budget": Chosen(budget.text, "plan.budget: training time of a fold; the learning rate is zero when it ends"),
        "epochs": Chosen(None, "the budget decides"),
    }


def trainer_section(regime: Regime, budget: Budget) -> Mapping[str, Node]:
    """The section ``trainer``."""
    why = f"average of the weights, per step: {regime.words}"
    return {"ema_decay": Chosen(regime.ema_decay, why if regime.ema_decay else "no average of the weights, as nnU-Net")}
