"""Self-configuration: from a fingerprint and a budget to a plan that a person can read and edit."""

from __future__ import annotations

from pipeline.planning.axes import given_in_order
from pipeline.planning.budget import Budget
from pipeline.planning.make import Plan, choices_text, make_plan

__all__ = ["Budget", "Plan", "choices_text", "given_in_order", "make_plan"]
