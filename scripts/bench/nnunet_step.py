"""nnU-Net's own training step, for scripts/bench/engine.py; runs in an environment that holds nnunetv2.

    PYTHON scripts/bench/nnunet_step.py '{"patch": [40, 56, 40], "batch": 9, "classes": 3, "features": [32, 64], ...}'

The network is nnU-Net's (dynamic_network_architectures), so are the loss (Dice + cross entropy under deep supervision),
the optimizer and its values, and the clipping; the step is that of nnUNetTrainer.train_step on a CPU, where it runs in
float32, and for `bf16` the same under autocast; on a GPU (`fp16`) its network is compiled and runs under float16
autocast with a gradient scaler. Reads `fp32`, `bf16` or `fp16` from standard input, answers with the seconds of one
step.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time


def main() -> None:
    """Answer requests until the input ends."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    plan = json.loads(sys.argv[1])
    torch.set_num_threads(plan["threads"])
    clock = time.process_time if plan["cpu_time"] else time.perf_counter
    three = len(plan["patch"]) == 3
    stages = len(plan["features"])
    torch.manual_seed(0)
    network = PlainConvUNet(
        1,
        stages,
        plan["features"],
        torch.nn.Conv3d if three else torch.nn.Conv2d,
        plan["kernels"],
        plan["strides"],
        [2] * stages,
        plan["classes"],
        [2] * (stages - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d if three else torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    network.apply(InitWeights_He(1e-2))
    weights = [0.5**i for i in range(stages - 1)]
    weights[-1] = 0.0
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss(
            {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            weight_ce=1,
            weight_dice=1,
            dice_class=MemoryEfficientSoftDiceLoss,
        ),
        [weight / sum(weights) for weight in weights],
    )
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    network.to(device)
    scaler = torch.amp.GradScaler("cuda") if cuda else None
    compiled = torch.compile(network) if cuda else network
    if cuda:
        torch.backends.cudnn.benchmark = True
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    image = torch.randn(plan["batch"], 1, *plan["patch"], device=device)
    truth = torch.randint(0, plan["classes"], (plan["batch"], 1, *plan["patch"]), device=device).float()
    targets, size = [], list(plan["patch"])
    for stride in plan["strides"][: stages - 1]:
        size = [extent // step for extent, step in zip(size, stride, strict=True)]
        targets.append(torch.nn.functional.interpolate(truth, size=tuple(size), mode="nearest"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"nnU-Net: {parameters} parameters", file=sys.stderr)
    for line in sys.stdin:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(line.strip())
        begun = clock()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, kind) if kind is not None else contextlib.nullcontext():
            outputs = compiled(image)
            value = loss(outputs, targets)
        if scaler is None:
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
        else:
            scaler.scale(value).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            scaler.step(optimizer)
            scaler.update()
            torch.cuda.synchronize()
        print(clock() - begun, flush=True)


if __name__ == "__main__":
    main()
