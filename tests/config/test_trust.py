from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from pipeline.config.build import build
from pipeline.config.signatures import MissingNameError, find_definition
from pipeline.config.targets import check_targets
from pipeline.config.trust import resolve_target
from pipeline.errors import UserError

ALLOWED = [
    "monai.losses.DiceCELoss",
    "monai.networks.nets.DenseNet121",
    "monai.networks.nets.UNet",
    "monai.networks.nets.densenet121",
    "monai.networks.nets.resnet18",
    "monai.transforms.Compose",
    "monai.transforms.RandAffined",
    "monai.transforms.SpacingD",
    "pytorch_lightning.callbacks.EarlyStopping",
    "torch.nn.BCEWithLogitsLoss",
    "torch.nn.CrossEntropyLoss",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.PolynomialLR",
]

REFUSED = [
    "builtins.eval",
    "functools.partial",
    "importlib.import_module",
    "monai.bundle.run",
    "monai.data.utils.pickle_hashing",
    "monai.inferers.PatchInferer",
    "monai.losses.PerceptualLoss",
    "monai.networks.nets.cell_sam_wrapper.CellSamWrapper",
    "monai.networks.nets.TorchVisionFCModel",
    "monai.networks.nets.resnet.hf_hub_download",
    "monai.networks.nets.unet.warnings.warn",
    "monai.networks.utils.convert_to_onnx",
    "monai.optimizers.LearningRateFinder",
    "monai.transforms.Lambda",
    "monai.transforms.LambdaD",
    "monai.transforms.Lambdad",
    "monai.transforms.LoadImage",
    "monai.transforms.LoadImaged",
    "monai.transforms.RandLambdad",
    "monai.transforms.RandTorchVisiond",
    "monai.transforms.SaveImaged",
    "monai.transforms.TorchIO",
    "monai.transforms.adaptor",
    "monai.networks.nets.hovernet.os.system",
    "monai.transforms.utility.array.deepcopy",
    "monai.transforms.utils.rescale_array",
    "os.system",
    "pytorch_lightning.callbacks.LambdaCallback",
    "subprocess.Popen",
    "torch.hub.load",
    "torch.load",
    "torch.nn.Module.__init_subclass__",
    "torch.nn.Module.load_state_dict",
    "torch.nn.modules.module.torch.load",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.package.PackageImporter",
    "torch.utils.cpp_extension.load",
]


@pytest.mark.parametrize("path", ALLOWED)
def test_what_the_pipeline_needs_is_allowed(path: str) -> None:
    assert callable(resolve_target(path))
    assert not [fault for _, fault, _ in check_targets({"_target_": path, "_partial_": True})]


@pytest.mark.parametrize("path", REFUSED)
def test_what_could_run_code_is_refused_with_and_without_importing_it(path: str) -> None:
    with pytest.raises(UserError, match="not allowed"):
        resolve_target(path)
    (fault,) = check_targets({"_target_": path, "_partial_": True})
    assert "not allowed" in fault[1]


@pytest.mark.parametrize("path", [3, None, "eval", "torch..nn", "torch.nn.${x}", "torch.nn.Linear()", "a b.c"])
def test_what_is_not_a_dotted_path(path: object) -> None:
    with pytest.raises(UserError, match="not a dotted path"):
        resolve_target(path)


def test_a_module_is_not_imported_to_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Net:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (fault,) = check_targets({"network": {"_target_": "evil_net.Net"}})
    assert "trust=[evil_net]" in fault[2][0]
    with pytest.raises(UserError, match="not allowed"):
        build({"_target_": "evil_net.Net"}, "network")
    assert not (tmp_path / "ran").exists()


def test_a_module_that_the_user_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text("class Net:\n    def __init__(self, width):\n        self.width = width\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "own_net.Net", "widht": 3}
    (extra, missing) = check_targets({"network": node}, ["own_net"])
    assert extra == (("network", "widht"), "Net has no parameter 'widht'", ("did you mean width?",))
    assert "Net needs width" in missing[1]
    assert build({"_target_": "own_net.Net", "width": [1]}, "network", ["own_net"]).width == [1]
    assert "own_net" in sys.modules


@pytest.mark.parametrize("path", [p for p in ALLOWED if p != "monai.networks.nets.resnet18"])
def test_parameters_read_from_source_are_those_of_the_live_object(path: str) -> None:
    definition = find_definition(path)
    assert definition is not None
    assert definition.signature is not None
    live = inspect.signature(resolve_target(path)).parameters
    named = {name for name, p in live.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert named <= set(definition.signature.parameters)
    if not any(p.kind is p.VAR_KEYWORD for p in live.values()):
        assert named == set(definition.signature.parameters)
        needed = {name for name, p in live.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        assert needed == {name for name, p in definition.signature.parameters.items() if p.required}


def test_parameters_are_followed_through_keyword_arguments() -> None:
    definition = find_definition("monai.networks.nets.resnet18")
    assert definition is not None
    assert definition.signature is not None
    assert not definition.signature.open
    assert {"pretrained", "spatial_dims", "n_input_channels", "num_classes"} <= set(definition.signature.parameters)
    assert not {"block", "layers", "arch"} & set(definition.signature.parameters)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(MissingNameError) as caught:
        find_definition("monai.networks.nets.UNett")
    assert "UNet" in caught.value.valid
    with pytest.raises(UserError, match="there is no 'UNett' in monai"):
        resolve_target("monai.networks.nets.UNett")


def test_objects_get_plain_containers_and_live_arguments_unchanged() -> None:
    import torch

    network = build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}, "network")
    optimizer = build({"_target_": "torch.optim.SGD", "lr": 0.5}, "optimizer", params=list(network.parameters()))
    assert optimizer.param_groups[0]["params"][0] is network.weight
    partial = build({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, "optimizer")
    assert isinstance(partial(network.parameters()), torch.optim.SGD)
    flip = build([{"_target_": "monai.transforms.RandFlipd", "keys": ["image"], "prob": 1.0}], "transforms")
    assert type(flip) is list
    assert flip[0].keys == ("image",)


def test_what_a_constructor_refuses_names_the_node() -> None:
    unet = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    with pytest.raises(UserError) as caught:
        build(unet | {"channels": [4], "strides": [2]}, "network")
    assert caught.value.cause.startswith("network: ValueError: the length of `channels` should be no less than 2")
    with pytest.raises(UserError, match=r"transforms\.preprocessing\.0: "):
        build([{"_target_": "monai.transforms.Spacingd", "keys": [], "pixdim": 1.0}, unet], "transforms.preprocessing")
    with pytest.raises(UserError, match="is not resolved"):
        build(unet | {"channels": "${oc.env:HOME}"}, "network")
