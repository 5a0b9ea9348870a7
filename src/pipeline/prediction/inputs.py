"""What a trained run is asked to predict: one case per image, or per set of modalities."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.case import Case, FileSource
from pipeline.data.image_io import SUFFIXES, mask_name, read_header, stem_of, suffix_of
from pipeline.data.modalities import reference_source
from pipeline.data.readers.files import matches
from pipeline.errors import UserError
from pipeline.prediction.trained_run import TrainedRun


def input_cases(source: Path, run: TrainedRun) -> list[Case]:
    """The cases of a file or folder, in name order; raises UserError for what the run's networks cannot take.

    Of several modalities ``source`` is a folder: with one folder per modality, in which the images of a case share
    their name; or laid out like the training data, where templates (data.images) described that. A case may lack
    modalities only when the run was trained with modality dropout.
    """
    if not source.exists():
        raise UserError(f"input={source}: no such file or folder")
    several = len(run.card.modalities) > 1
    cases = _several(source, run) if several else _single(source, run)
    for case in cases:
        for image in case.images.values():
            header = read_header(image)
            wanted = 1 if several else run.card.channels
            if header.spatial_dims != run.card.spatial_dims or header.channels != wanted:
                raise UserError(
                    f"{image.path}: is {header.spatial_dims}D with {header.channels} channel(s); "
                    f"the run was trained on {run.card.spatial_dims}D with {wanted}"
                )
    return cases


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file, hidden files apart."""
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(SUFFIXES)


def output_name(case: Case, run: TrainedRun) -> str:
    """File name of a case's mask: that of its image; of several modalities the case with the reference's suffix."""
    name = mask_name(reference_source(case, run.card.modalities))
    return name if len(run.card.modalities) == 1 else case.case_id + suffix_of(Path(name))


def _single(source: Path, run: TrainedRun) -> list[Case]:
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if is_image(path))
    if not files:
        raise UserError(f"input={source}: holds no image", f"images end in {', '.join(SUFFIXES)}")
    found: dict[str, Path] = {}
    for path in files:
        _once(found, stem_of(path), path)
    return [Case(name, name, {run.card.modalities[0]: FileSource(path)}) for name, path in found.items()]


def _once(found: dict[str, Path], name: str, path: Path) -> None:
    """Note the file of a case; raises UserError where it has one: what is written for it has one name, too."""
    if name in found:
        raise UserError(
            f"{path}: {found[name].name} beside it is the case {name} already, by its name",
            "rename one of them, or predict them from folders of their own",
        )
    found[name] = path


def _several(source: Path, run: TrainedRun) -> list[Case]:
    modalities = run.card.modalities
    named = ", ".join(modalities)
    remedy = f"name a folder with one folder per modality ({named}), in which a case has one name"
    if not source.is_dir():
        raise UserError(f"input={source}: the run takes {named} together, not one file", remedy)
    found: dict[str, dict[str, FileSource]] = {}
    templates = (run.config.get("data") or {}).get("images") or {}
    for modality in modalities:
        folder = source / modality
        if folder.is_dir():
            pairs = [(stem_of(path), path) for path in sorted(folder.iterdir()) if is_image(path)]
        elif modality in templates:
            pairs = [(fields["case"], path) for fields, path in matches(source, templates[modality], "data.images")]
        else:
            pairs = []
        files: dict[str, Path] = {}
        for case_id, path in pairs:
            _once(files, case_id, path)
            found.setdefault(case_id, {})[modality] = FileSource(path)
    if not found:
        raise UserError(f"input={source}: holds no image of {named}", remedy)
    lacking = {case_id: [name for name in modalities if name not in images] for case_id, images in found.items()}
    lacking = {case_id: names for case_id, names in lacking.items() if names}
    if lacking and run.card.modality_dropout == 0:
        case_id, names = next(iter(sorted(lacking.items())))
        raise UserError(
            f"input={source}: {len(lacking)} cases lack a modality, such as {case_id}: no {', '.join(names)}",
            "this run was trained on complete cases; complete them",
            "or train with sampling.modality_dropout above 0, so that the model does without",
        )
    return [Case(case_id, case_id, images) for case_id, images in sorted(found.items())]
