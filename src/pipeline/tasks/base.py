"""What segmentation and classification share: the training step and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from pipeline.errors import UserError, is_out_of_memory
from pipeline.randomness import draw_seed
from pipeline.tasks.deep_supervision import DeepSupervision
from pipeline.tasks.parts import StepInParts
from pipeline.transforms.batch import BatchAugmentation

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Task(LightningModule):
    """A network, its loss and its optimizer. Subclasses say what the truth of a batch is and how to validate.

    Dropout and every other draw inside the step is seeded from (seed, epoch, batch, rank), so it does not depend on
    what happened before. ``augmentation`` is applied to every training batch. ``last_loss`` is the loss of the last
    batch; subclasses log ``val_metric`` (higher is better).
    """

    truth = "label"  # key of the batch
    metric = "val_metric"  # the validation metric's name for people

    def __init__(self, network: nn.Module, loss: nn.Module, optimizer: OptimizerFactory, *, seed: int) -> None:
        super().__init__()
        self.network = network
        self.loss = DeepSupervision(loss)
        self.optimizer_factory = optimizer
        self.seed = seed
        self.augmentation = BatchAugmentation([])
        self.last_loss: Tensor | None = None
        self.in_parts: StepInParts | None = None  # where a batch may be more than fits the memory
        self._gradients: list[Tensor | None] | None = None

    def forward(self, image: Tensor) -> Any:
        """Logits (B, classes, ...) of ``image`` (B, C, *spatial)."""
        return self.network(image)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment a training batch on the device it is on now."""
        return self.augmentation(batch) if self.trainer.training else batch

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        seed = draw_seed(self.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if self.in_parts is None:
            loss = self._loss(batch)
        else:
            total, self._gradients = self.in_parts(batch, self._loss, self._learning())
            loss = total.requires_grad_()
        self.last_loss = loss.detach()
        return loss

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        return self.loss_of(to_float(self._outputs(batch["image"])), batch)

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def backward(self, loss: Tensor, *arguments: Any, **keywords: Any) -> None:
        """Gradients of the step, which are there already where it was computed in parts."""
        if self._gradients is None:
            super().backward(loss, *arguments, **keywords)
            return
        share = 1 / self.trainer.accumulate_grad_batches
        for parameter, gradient in zip(self._learning(), self._gradients, strict=True):
            if gradient is not None:
                if gradient.stride() != parameter.stride():  # a fused optimizer takes both as they lie
                    gradient = torch.empty_like(parameter).copy_(gradient)
                gradient = gradient * share if share != 1 else gradient
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._gradients = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep in how many parts a batch is computed."""
        checkpoint["parts"] = 1 if self.in_parts is None else self.in_parts.parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with as many parts."""
        if self.in_parts is not None:
            self.in_parts.parts = max(self.in_parts.parts, int(checkpoint.get("parts", 1)))

    def _outputs(self, image: Tensor) -> Any:
        """What the network makes of a batch; one that takes no such images says so at the first step."""
        try:
            return self.network(image)
        except (RuntimeError, ValueError, TypeError) as error:
            if self.global_step > 0 or is_out_of_memory(error):
                raise
            size = "x".join(map(str, image.shape[2:]))
            raise UserError(
                f"network: {type(self.network).__name__} refused a batch of {len(image)} images of {size} voxels: "
                f"{' '.join(str(error).split())[:300]}",
                "set sampling.patch_size (or transforms.size) to a size that it takes",
                "or wrap it: _target_: pipeline.networks.PadToMultiple, as conf/network/segresnet.yaml does",
            ) from error

    def loss_of(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Loss of float32 logits, or of a list of them, against the truth of the batch."""
        loss: Tensor = self.loss(outputs, batch[self.truth])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over all parameters that learn; the learning rate is set by ``training.pace.Pace``."""
        return self.optimizer_factory(self._learning())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm; Lightning refuses a fused optimizer under autocast, for scaled gradients, which bf16 lacks."""
        if gradient_clip_val:
            self.trainer.precision_plugin.clip_grad_by_norm(optimizer, gradient_clip_val)


def to_float(outputs: Any) -> Any:
    """Losses are computed in float32, also under bf16 autocast; deep supervision gives several outputs."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return [output.float() for output in outputs]
