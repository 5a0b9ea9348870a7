"""A finished run as a predictor: its own preprocessing, its networks, its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.build import build
from pipeline.config.recorded import read_plain_yaml
from pipeline.data.case import Labels
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import UserError
from pipeline.inference.decision import Decision
from pipeline.inference.predictor import SlidingWindow, WholeImage
from pipeline.networks.engine import Engine, use_engine
from pipeline.networks.host_memory import keep_freed_memory
from pipeline.networks.modalities import CompleteModalities
from pipeline.prediction.postprocessing import POSTPROCESS_FILE, Postprocessing
from pipeline.prediction.weights import network_weights, read_checkpoint

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What a prediction needs to know besides the configuration; written by training as ``model.json``."""

    task: str
    class_names: tuple[str, ...]  # of the network's outputs, background first in segmentation
    label_values: Mapping[int, str] | None  # raw mask value -> class name; None in classification
    regions: Mapping[str, tuple[int, ...]] | None  # name -> raw mask values, where the outputs are regions
    modalities: tuple[str, ...]
    incomplete: bool  # the networks hold what stands in for absent modalities
    modality_dropout: float  # above 0: trained to predict without some of the modalities
    checkpoint: str
    bf16: bool
    spatial_dims: int
    channels: int

    def as_json(self) -> dict[str, Any]:
        """Plain types, JSON keys are text."""
        values = None if self.label_values is None else {str(k): v for k, v in self.label_values.items()}
        return {
            **vars(self),
            "label_values": values,
            "regions": None if self.regions is None else {name: list(part) for name, part in self.regions.items()},
            "class_names": list(self.class_names),
            "modalities": list(self.modalities),
        }

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read ``model.json``; raises :class:`UserError`."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            values, regions = content["label_values"], content["regions"]
            return cls(
                **{
                    **content,
                    "label_values": None if values is None else {int(k): str(v) for k, v in values.items()},
                    "regions": None if regions is None else {k: tuple(map(int, v)) for k, v in regions.items()},
                    "class_names": tuple(content["class_names"]),
                    "modalities": tuple(content["modalities"]),
                }
            )
        except FileNotFoundError as error:
            runs = sorted(path.parent.glob(f"*/{path.name}"), reverse=True)
            hint = (
                f"did you mean {runs[0].parent}?"
                if runs
                else "a run's folder is named in the last lines of its training"
            )
            raise UserError(f"{path.parent}: not the folder of a run, it has no {path.name}", hint) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not readable: {error}") from error


class TrainedRun:
    """The networks of a run's folds with everything around them, ready to predict.

    ``folds``: which folds' networks, None for all that are there. ``checkpoint``: ``last`` or ``best``, None for
    the one the run was evaluated with. ``postprocess``: whether to remove the components that the run decided to
    remove. ``memory_gb``: in place of the run's inference.memory_gb. Raises :class:`UserError` for a folder that is no
    run or has no such checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        folds: Sequence[int] | None,
        checkpoint: str | None,
        postprocess: bool,
        memory_gb: float | None,
        trust: Sequence[str],
        device: torch.device,
    ) -> None:
        self.folder = folder
        self.card = ModelCard.read(folder / MODEL_FILE)
        self.config = read_plain_yaml(folder / "config.yaml")
        self.device = device
        card = self.card
        self.labels = None if card.label_values is None else Labels(card.label_values, card.regions)
        painted = self.labels.painted if self.labels is not None and card.regions is not None else None
        inference = dict(self.config["inference"])
        self.decision = Decision(painted, float(inference.pop("region_threshold")))
        transforms = build(self.config["transforms"]["preprocessing"], "transforms.preprocessing", trust)
        from monai.transforms import Compose

        self.preprocessing = Preprocessing(
            Compose(transforms),
            self.labels,
            modalities=card.modalities,
            missing_voxels=self.config["data"]["missing"]["voxels"],
        )
        self.postprocessing: Postprocessing | None = None
        if self.labels is not None and postprocess:
            self.postprocessing = Postprocessing.read(folder / POSTPROCESS_FILE, self.labels)
        if (self.config.get("engine") or {}).get("keep_memory") and device.type == "cpu":
            keep_freed_memory()
        self.networks = [
            self._network(index, checkpoint or self.card.checkpoint, trust) for index in self._folds(folds)
        ]
        if self.card.task == "classification":
            self.predictor: Any = WholeImage(mirror_axes=inference["mirror_axes"])
        else:
            inference |= {} if memory_gb is None else {"memory_gb": memory_gb}
            self.predictor = SlidingWindow(self.config["derived"]["patch_size"], **inference)

    def _folds(self, wanted: Sequence[int] | None) -> list[int]:
        found = sorted(
            int(path.parent.parent.name.removeprefix("fold_"))
            for path in self.folder.glob("fold_*/checkpoints/last.ckpt")
        )
        if not found:
            raise UserError(f"{self.folder}: no fold of this run has a checkpoint", "was it trained to the end?")
        if wanted is None:
            return found
        missing = [index for index in wanted if index not in found]
        if missing:
            raise UserError(
                f"ensemble={list(wanted)}: fold {missing[0]} was not trained in {self.folder}", f"there are {found}"
            )
        return list(wanted)

    def _network(self, fold: int, checkpoint: str, trust: Sequence[str]) -> nn.Module:
        path = self.folder / f"fold_{fold}" / "checkpoints" / f"{checkpoint}.ckpt"
        engine = Engine.recorded(self.config.get("engine"))
        network = use_engine(build(self.config["network"], "network", trust), engine, training=False)
        if self.card.incomplete:
            network = CompleteModalities(network, [0.0] * self.card.channels)  # the weights hold the values
        try:
            network.load_state_dict(network_weights(read_checkpoint(path)))
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{path}: its weights do not fit the network of config.yaml") from error
        return network.to(self.device).eval()
