"""What is wrong with data or configuration ends with exit status 2, the file and the fault, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main
from tests.integration.generated import hippocampus, shenzhen


def shifted_mask(root: Path) -> None:
    path = root / "labelsTr" / "hippocampus_003.nii.gz"
    mask = nib.load(path)
    affine = mask.affine.copy()
    affine[0, 3] += 0.5
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), affine), path)


def smaller_mask(root: Path) -> None:
    path = root / "labelsTr" / "hippocampus_004.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj)[:-1], mask.affine), path)


def undeclared_label(root: Path) -> None:
    path = root / "labelsTr" / "hippocampus_005.nii.gz"
    mask = nib.load(path)
    array = np.asarray(mask.dataobj).copy()
    array[5, 5, 5] = 7
    nib.save(nib.Nifti1Image(array, mask.affine), path)


def truncated(root: Path) -> None:
    path = root / "imagesTr" / "hippocampus_006.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (shifted_mask, "labelsTr/hippocampus_003.nii.gz", "affine"),
        (smaller_mask, "labelsTr/hippocampus_004.nii.gz", "shape"),
        (undeclared_label, "labelsTr/hippocampus_005.nii.gz", "7"),
        (truncated, "imagesTr/hippocampus_006.nii.gz", "trunc"),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_a_faulty_file_is_named(
    command: str,
    spoil: Callable[[Path], None],
    file: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hippocampus(tmp_path / "data")
    spoil(tmp_path / "data")
    run = tmp_path / "run"
    overrides = [f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}", f"output={run}"]
    assert main([command, "experiment=hippocampus_unet", *overrides]) == 2
    text = "".join(capsys.readouterr())
    assert file in text
    assert said in text.lower()
    assert "Traceback" not in text
    assert not (run / "fold_0").exists()


def test_values_of_a_picture_must_be_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shenzhen(tmp_path / "data")
    mask = sorted((tmp_path / "data" / "masks").iterdir())[4]
    array = np.asarray(Image.open(mask)).copy()
    array[3, 3] = 128
    Image.fromarray(array).save(mask)
    overrides = [f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}"]
    assert main(["check", "experiment=lung_xray_unet", *overrides]) == 2
    text = "".join(capsys.readouterr())
    assert mask.name in text
    assert "128" in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.root=nowhere_at_all"], "nowhere_at_all"),
        (["folds.count=11"], "folds.count=11 needs at least 11 patients; data has 10"),
        (["folds.run=[5]"], "there is no fold 5"),
        (["sampling.patch_size=[16,16]"], "sampling.patch_size=[16, 16] has 2 axes"),
        (["transforms.spacing=[1,1]"], "transforms.spacing=[1.0, 1.0] is for 2D images; those of hippocampus are 3D"),
        (
            ["network=segresnet", "network.multiple=1", "sampling.patch_size=[12,12,12]", "sampling.batch_size=2"],
            "refused a batch of 2 images of 12x12x12 voxels",
        ),
        (["loss.class_weights=[1,2]"], "loss.class_weights has 2 numbers; there are 3 classes"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    overrides: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hippocampus(tmp_path / "data")
    given = [f"data.root={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}", "tracking.enabled=false"]
    command = ["experiment=hippocampus_unet", *given, f"output={tmp_path / 'run'}", *overrides]
    assert main(command) == 2
    text = "".join(capsys.readouterr())
    assert said in text
    assert "Traceback" not in text


def test_a_used_output_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert main(["experiment=lung_unet", f"output={tmp_path / 'run'}"]) == 2
    assert "the output folder is not empty" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_picture_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shenzhen(tmp_path / "data")
    picture = sorted((tmp_path / "data" / "images").iterdir())[2]
    picture.write_bytes(b"not a picture")
    assert main(["check", "experiment=tb_xray_cnn", f"data.root={tmp_path / 'data'}", f"cache={tmp_path}"]) == 2
    assert picture.name in "".join(capsys.readouterr())
    Image.new("L", (48, 40)).save(picture)  # constant
    main(["check", "experiment=tb_xray_cnn", f"data.root={tmp_path / 'data'}", f"cache={tmp_path}"])
    assert "constant" in "".join(capsys.readouterr())
