"""Drift between training data and new images: limits worked out by hand, and real sets against each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from pipeline.data.case import Case, Dataset, FileSource
from pipeline.data.fingerprint import DriftSettings, Fingerprint, FingerprintSettings, find_drift, write_fingerprint
from pipeline.data.fingerprint.collect import summed_up
from pipeline.data.fingerprint.drift import Drift
from pipeline.data.fingerprint.limits import Limits, central
from pipeline.data.fingerprint.measure import measure_case
from pipeline.data.fingerprint.summarise import spread
from pipeline.data.readers import read_decathlon
from pipeline.errors import UserError
from pipeline.prediction.drift import warn_of_drift

SETTINGS = FingerprintSettings(sample_voxels=2000)
PLAIN = DriftSettings(few_cases=0)


def of(cases: list[Case], spatial_dims: int = 3) -> Fingerprint:
    """The fingerprint of images without masks."""
    root = next(iter(cases[0].images.values())).path.parent
    data = Dataset("training", root, "classification", tuple(cases), tuple(cases[0].images), None, (), spatial_dims)
    found = [(case, measure_case(case, None, SETTINGS, drawn=2000, place=place)) for place, case in enumerate(cases)]
    return summed_up(data, found, SETTINGS)


def scan(
    folder: Path, number: int, *, mm: float = 1.0, side: int = 16, scale: float = 1.0, offset: float = 0.0
) -> Case:
    """A CT-like volume: half air, half tissue, with a little noise of its own."""
    draw = np.random.default_rng(number)
    image = np.full((side, side, side), -1000.0 + draw.normal(0, 20))
    image[: side // 2] = draw.normal(40, 10)
    image += draw.normal(0, 15, image.shape)
    folder.mkdir(exist_ok=True)
    path = folder / f"scan_{number}.nii"
    nib.Nifti1Image((image * scale + offset).astype(np.float32), np.diag([mm, mm, mm, 1])).to_filename(path)
    return Case(f"scan_{number}", f"scan_{number}", {"CT": FileSource(path)})


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Fingerprint:
    folder = tmp_path_factory.mktemp("training")
    return of([scan(folder, number, side=14 + number % 5) for number in range(30)])


def rules(drift: Drift) -> set[str]:
    return {finding.rule for finding in drift.findings}


def test_limits_by_factor() -> None:
    values = spread([1.0, 1.0, 1.5, 2.0], FingerprintSettings(percentiles=(25.0, 75.0)))
    limits = Limits.by_factor(values, replace(PLAIN, central=(25.0, 75.0)), 1.25)
    assert limits.case == pytest.approx((0.8, 2.5))
    assert limits.central == pytest.approx((1.0, 1.625))
    assert limits.median == pytest.approx((0.8, 1.625 * 1.25))
    assert limits.beyond(2.5, limits.case) == 0
    assert limits.beyond(2.5 * 1.25, limits.case) == pytest.approx(1)
    assert limits.beyond(0.8 / 1.25**2, limits.case) == pytest.approx(2)


def test_limits_by_width() -> None:
    values = spread(np.arange(101.0).tolist(), FingerprintSettings(percentiles=(10.0, 90.0)))
    settings = replace(PLAIN, central=(10.0, 90.0), margin=0.5, median_margin=0.1)
    limits = Limits.by_width(values, settings, contrast=100)
    assert limits.central == pytest.approx((10, 90))
    assert limits.case == pytest.approx((-40, 140))
    assert limits.median == pytest.approx((2, 98))
    assert limits.beyond(180, limits.case) == pytest.approx(0.5)
    same = spread([7.0, 7.0], FingerprintSettings())
    assert Limits.by_width(same, settings, contrast=200).case == pytest.approx((-3, 17))  # a tenth of the contrast


def test_few_training_cases_widen_the_limits() -> None:
    values = spread([1.0, 2.0], FingerprintSettings())
    assert Limits.by_factor(values, DriftSettings(few_cases=2), 1.5).case == pytest.approx((1 / 2.25, 2 * 2.25))
    wide, narrow = (Limits.by_width(values, DriftSettings(few_cases=few), 1.0) for few in (2, 0))
    assert wide.unit == pytest.approx(2 * narrow.unit)


def test_percentiles_between_the_known_ones() -> None:
    values = spread([0.0, 10.0, 20.0], FingerprintSettings(percentiles=(25.0, 75.0)))
    assert central(values, (12.5, 87.5)) == pytest.approx((2.5, 17.5))


def test_cases_of_the_same_kind_are_no_drift(training: Fingerprint, tmp_path: Path) -> None:
    inputs = [scan(tmp_path, number, side=14 + number % 5) for number in range(100, 120)]
    assert find_drift(training, inputs, workers=2).findings == ()
    assert not any(find_drift(training, [case]).findings for case in inputs)


@pytest.mark.parametrize(
    ("change", "rule", "said"),
    [
        ({"mm": 1.5}, "spacing", "CT: spacing along R: 1 of 1 file outside of the training cases (1 to 1 mm): worst "),
        ({"side": 60}, "size", "CT: size along R: 1 of 1 file outside of the training cases (14 to 18 mm): worst "),
        ({"scale": 0.12, "offset": 130}, "values", "CT: range of values: 1 of 1 file in other units, or rescaled"),
        ({"scale": 0.12, "offset": 130}, "intensity", "CT: darkest intensities (0.5 percentile): 1 of 1 file outside"),
        ({"offset": 1024}, "intensity", "CT: mean intensity: 1 of 1 file outside of the training cases ("),
        ({"scale": 2.0}, "intensity", "CT: darkest intensities (0.5 percentile): 1 of 1 file outside"),
    ],
)
def test_a_single_file_that_differs(
    training: Fingerprint, tmp_path: Path, change: dict[str, float], rule: str, said: str
) -> None:
    drift = find_drift(training, [scan(tmp_path, 200, **change)])  # type: ignore[arg-type]
    assert rule in rules(drift)
    assert any(line.startswith(said) for line in drift.lines), drift.lines
    assert all(finding.files == ("scan_200.nii",) for finding in drift.findings)


def test_the_line_counts_the_files_and_names_the_worst(training: Fingerprint, tmp_path: Path) -> None:
    inputs = [scan(tmp_path, number) for number in range(300, 307)]
    inputs += [scan(tmp_path, 400, mm=2.0), scan(tmp_path, 401, mm=3.0)]
    drift = find_drift(training, inputs)
    line = next(line for line in drift.lines if "spacing" in line)
    assert line == (
        "CT: spacing along R: 2 of 9 files outside of the training cases (1 to 1 mm): worst scan_401.nii with 3 mm"
        " (also spacing along A, spacing along S)"
    )
    found = next(finding for finding in drift.findings if finding.quantity == "spacing along S")
    assert (found.files, found.value, found.median) == (("scan_401.nii", "scan_400.nii"), 3.0, None)


def test_many_files_drift_together_where_none_is_out_of_range(tmp_path: Path) -> None:
    """Training means spread evenly from 0 to 100; new images all lie at 100: each is possible, all together are not."""

    def flat(number: int, value: float) -> Case:
        path = tmp_path / f"{number}_{value:g}.nii"
        image = np.tile([-60.0, 60.0], (8, 8, 4)) + value
        nib.Nifti1Image(image.astype(np.float32), np.eye(4)).to_filename(path)
        return Case(path.stem, path.stem, {"MRI": FileSource(path)})

    known = of([flat(number, value) for number, value in enumerate(np.linspace(0, 100, 41))])
    few = find_drift(known, [flat(100 + number, 100) for number in range(4)], PLAIN)
    assert few.findings == ()
    many = find_drift(known, [flat(100 + number, 100) for number in range(5)], PLAIN)
    assert rules(many) == {"intensity"}
    assert {finding.files for finding in many.findings} == {()}
    mean = next(finding for finding in many.findings if finding.quantity == "mean intensity")
    assert mean.median == 100
    assert mean.central == pytest.approx((5, 95))
    said = (
        "5 of 5 files outside of the central 90 % of the training cases (5 to 95): median 100, worst 100_100.nii with"
    )
    assert mean.text == f"MRI: mean intensity: {said} 100"


def test_pictures_are_compared_in_pixels_and_by_black_frames(tmp_path: Path) -> None:
    def picture(number: int, side: int = 40, frame: int = 0) -> Case:
        draw = np.random.default_rng(number)
        array = np.clip(draw.normal(120 + number % 20, 40, (side, side)), 1, 255).astype(np.uint8)
        array[:frame] = 0
        path = tmp_path / f"{number}_{side}_{frame}.png"
        Pillow.fromarray(array).save(path)
        return Case(path.stem, path.stem, {"image": FileSource(path)})

    known = of([picture(number) for number in range(20)], spatial_dims=2)
    assert find_drift(known, [picture(number) for number in range(30, 50)]).findings == ()
    larger = find_drift(known, [picture(50, side=100)])
    assert [line.partition(":")[2] for line in larger.lines] == [
        " size in rows: 1 of 1 file outside of the training cases (40 to 40 px): worst 50_100_0.png with 100 px"
        " (also size in columns)"
    ]
    framed = find_drift(known, [picture(number, frame=4) for number in range(60, 70)])
    assert "share of voxels with the lowest value" in {finding.quantity for finding in framed.findings}


def test_absent_modalities_are_no_drift(tmp_path: Path) -> None:
    both = []
    for number in range(12):
        first, second = scan(tmp_path / "a", number), scan(tmp_path / "b", number, scale=3)
        both.append(Case(first.case_id, first.case_id, {"CT": first.images["CT"], "PET": second.images["CT"]}))
    known = of(both)
    lacking = replace(both[0], images={"PET": both[0].images["PET"]})
    assert find_drift(known, [lacking]).findings == ()
    swapped = replace(both[0], images={"PET": both[0].images["CT"], "CT": both[0].images["PET"]})
    assert {finding.image for finding in find_drift(known, [swapped]).findings} == {"CT", "PET"}


def test_the_report_is_written_and_printed(training: Fingerprint, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    output.mkdir()
    console = Console(record=True, width=300)
    inputs = [scan(tmp_path, 500, mm=4.0)]
    warn_of_drift(run, inputs, output, DriftSettings(), console)
    assert "no fingerprint.json" in console.export_text()
    write_fingerprint(run / "fingerprint.json", training)
    warn_of_drift(run, inputs, output, DriftSettings(), console)
    said = console.export_text()
    assert "warning: drift: CT: spacing along R: 1 of 1 file outside of the training cases (1 to 1 mm)" in said
    content = json.loads((output / "drift.json").read_text())
    assert (content["training"], content["training_cases"], content["inputs"]) == ("training", 30, 1)
    assert content["findings"][0]["files"] == ["scan_500.nii"]
    assert content["lines"] == [line.removeprefix("warning: drift: ") for line in said.splitlines()]
    warn_of_drift(run, inputs, output, DriftSettings(enabled=False), console)
    assert not (output / "drift.json").exists()
    (run / "fingerprint.json").write_text("{}")
    with pytest.raises(UserError, match="not a fingerprint"):
        warn_of_drift(run, inputs, output, DriftSettings(), console)


def test_an_image_that_cannot_be_read_is_named(training: Fingerprint, tmp_path: Path) -> None:
    cases = [scan(tmp_path, number) for number in (1, 2)]
    path = next(iter(cases[1].images.values())).path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"scan_2.nii"):
        find_drift(training, cases, workers=2)


def test_real_hippocampi_are_alike_and_unlike_other_scans(real_data: Callable[[str], Path]) -> None:
    cases = read_decathlon(root=real_data("Task04_Hippocampus")).cases
    known = of([replace(case, label=None) for case in cases[::2]])
    assert find_drift(known, cases[1:80:2], workers=2).findings == ()
    folder = real_data("lidc_nodules") / "images"
    nodules = [Case(path.stem, path.stem, {"MRI": FileSource(path)}) for path in sorted(folder.iterdir())[:10]]
    assert rules(find_drift(known, nodules, workers=2)) >= {"spacing", "size"}
