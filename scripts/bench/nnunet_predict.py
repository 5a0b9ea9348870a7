"""nnU-Net's own sliding window, for scripts/bench/prediction.py; runs in an environment that holds nnunetv2.

    PYTHON scripts/bench/nnunet_predict.py '{"shape": [320, 320, 160], "patch": [128, 128, 64], "flips": [], ...}'

nnUNetPredictor on its own network with random weights, from a preprocessed image in memory to class indices, as it
predicts on the device at hand: on a CPU in float32. Prints one line of JSON: seconds and memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def memory(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000


def main() -> None:
    """Predict once."""
    plan = json.loads(sys.argv[1])
    os.environ |= {"nnUNet_def_n_proc": str(plan["threads"])}  # nnU-Net takes no more threads than this
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(plan["threads"])
    stages = len(plan["features"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = PlainConvUNet(
        1,
        stages,
        plan["features"],
        torch.nn.Conv3d,
        plan["kernels"],
        plan["strides"],
        [2] * stages,
        plan["classes"],
        [2] * (stages - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        tile_step_size=1 - plan["overlap"],
        use_gaussian=True,
        use_mirroring=bool(plan["flips"]),
        device=device,
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.list_of_parameters = [network.state_dict()]
    predictor.allowed_mirroring_axes = tuple(plan["flips"])
    predictor.configuration_manager = SimpleNamespace(patch_size=plan["patch"])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=plan["classes"])

    def predict(image: torch.Tensor) -> torch.Tensor:
        return predictor.predict_logits_from_preprocessed_data(image).argmax(0).to(torch.uint8)

    image = torch.randn(1, *plan["shape"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins again
        before = memory("VmRSS")  # before the first window, whose memory the process may keep
        predict(image[:, : plan["patch"][0], : plan["patch"][1], : plan["patch"][2]])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun, worked = time.perf_counter(), time.process_time()
        predict(image)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    found = {"s": seconds, "CPU s": cpu, "MB": memory("VmHWM") - before}
    if device.type == "cuda":
        found["GPU MB"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main()
