"""nnU-Net trained for a while, for scripts/bench/accuracy.py; runs in an environment that holds nnunetv2.

    PYTHON scripts/bench/nnunet_train.py '{"raw": "Dataset004_Hippocampus", "work": "DIR", "seconds": 900, "fold": 0,
                                           "configuration": "3d_fullres", "bf16": false, "threads": 2,
                                           "warm_up": 0, "validate": true}'

Plans and preprocesses as nnU-Net does (once per `work`), then trains with its own trainer: network, loss, optimizer,
augmentation and loader are its; only the loop ends on the clock, and the polynomial decay follows the clock as well.
Then validates as nnU-Net does: sliding window, mirroring, on the native grid. `bf16` puts training and prediction under
autocast, which nnU-Net does on a GPU only. `warm_up`: steps before the clock starts, in which a GPU's network is
compiled. `seconds` 0: plans only. Prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train and validate one fold."""
    wanted = json.loads(sys.argv[1])
    work, raw = Path(wanted["work"]), Path(wanted["raw"]).resolve()
    for part in ("raw", "preprocessed", "results"):
        (work / part).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(work / part)
    if not (work / "raw" / raw.name).exists():
        (work / "raw" / raw.name).symlink_to(raw)
    os.environ |= {"nnUNet_def_n_proc": str(wanted["threads"])}
    answer = os.dup(1)
    os.dup2(2, 1)  # what nnU-Net prints is not the answer

    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    torch.set_num_threads(wanted["threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    number = int(raw.name[len("Dataset") :].split("_")[0])
    home = work / "preprocessed" / raw.name
    if not (home / f"nnUNetPlans_{wanted['configuration']}").exists():
        extract_fingerprints([number], num_processes=wanted["threads"])
        plan_experiments([number])
        preprocess([number], configurations=[wanted["configuration"]], num_processes=[wanted["threads"]])
    if not (home / "splits_final.json").exists():
        labels = json.loads((home / "dataset.json").read_text())["file_ending"]
        names = sorted(file.name.removesuffix(labels) for file in (raw / "labelsTr").iterdir())
        (home / "splits_final.json").write_text(json.dumps(generate_crossval_split(names, seed=12345, n_splits=5)))
    found: dict[str, Any] = {"splits": str(home / "splits_final.json")}
    if wanted["seconds"]:
        found |= train(wanted, home, device, nnUNetTrainer)
    sys.stdout.flush()
    os.dup2(answer, 1)
    print(json.dumps(found))


def train(wanted: dict[str, Any], home: Path, device: Any, trainer_type: Any) -> dict[str, Any]:
    """Dice of every case and class, steps, and seconds of training and prediction."""
    import torch

    budget = float(wanted["seconds"])

    def precision() -> Any:
        return torch.autocast(device.type, torch.bfloat16) if wanted["bf16"] else contextlib.nullcontext()

    class OnTheClock(trainer_type):  # type: ignore[misc]
        """nnU-Net's trainer with a loop that ends on the clock."""

        steps = 0
        spent = 0.0
        clock: tuple[float, ...] | list[float] = ()

        def run_training(self) -> None:
            self.on_train_start()
            self.network.train()
            next(self.dataloader_train)  # its processes have started
            for _ in range(wanted.get("warm_up", 0)):
                self.train_step(next(self.dataloader_train))
            self.clock = [time.time()]
            begun = time.perf_counter()
            while self.spent < budget:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * max(1 - self.spent / budget, 1e-3) ** 0.9
                with precision():
                    self.train_step(next(self.dataloader_train))
                self.steps += 1
                self.spent = time.perf_counter() - begun
            self.clock.append(time.time())
            self.on_train_end()

    plans = json.loads((home / "nnUNetPlans.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((home / "dataset.json").read_text())
    trainer = OnTheClock(plans, wanted["configuration"], wanted["fold"], dataset, device)
    trainer.disable_checkpointing = True
    trainer.run_training()
    found = {
        "training_s": trainer.spent,
        "clock": trainer.clock,
        "steps": trainer.steps,
        "batch": trainer.batch_size,
        "patch": list(trainer.configuration_manager.patch_size),
    }
    if not wanted.get("validate", True):
        return found
    begun = time.perf_counter()
    with precision():
        trainer.perform_actual_validation(False)
    predicting = time.perf_counter() - begun
    scored = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    labels = dataset["labels"].items()
    names = {str(tuple(value) if isinstance(value, list) else value): name for name, value in labels}
    ending = dataset["file_ending"]
    return {
        **found,
        "predicting_s": predicting,
        "dice": {
            Path(case["reference_file"]).name.removesuffix(ending): {
                names[label]: values["Dice"] for label, values in case["metrics"].items()
            }
            for case in scored["metric_per_case"]
        },
    }


if __name__ == "__main__":
    main()
