"""``python -m pipeline compare``: finished runs against each other on the same cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.check import make_console, tell
from pipeline.commands.predict import recorded_folder
from pipeline.config.compose import Composed
from pipeline.config.nearest import did_you_mean
from pipeline.config.schema import CompareConfig
from pipeline.errors import UserError

PATTERN = "*?["


def run(composed: Composed) -> int:
    """Exit status 0 when the runs were compared, whatever the result."""
    settings = composed.model
    assert isinstance(settings, CompareConfig)
    given = run_folders(settings)
    names = settings.names or short_names([folder for _, folder in given])
    require_names(names, len(given))
    reference = reference_of(settings.reference, names, given)
    from pipeline.training.comparing import compare_folders
    from pipeline.training.run_folder import named_folder, new_folder, release_folders

    console = make_console()
    output = new_folder(None if settings.output is None else named_folder(settings.output), "compare")
    try:
        compare_folders(
            dict(zip(names, (folder for _, folder in given), strict=True)),
            reference=reference,
            all_pairs=settings.pairs == "all",
            intersection=settings.intersection,
            metrics=settings.metrics,
            per_class=settings.per_class,
            resamples=settings.resamples,
            seed=settings.seed,
            level=settings.level,
            output=output,
            console=console,
        )
        tell(f"Results: {output}", console)
    finally:
        release_folders()
    return 0


def run_folders(settings: CompareConfig) -> list[tuple[str, Path]]:
    """What names each run, and its folder. Raises UserError for what names none."""
    found: list[tuple[str, Path]] = []
    for given in settings.runs:
        folder = Path(given).expanduser()
        if folder.is_dir():
            found.append((given, folder.absolute()))
        elif any(letter in given for letter in PATTERN):
            root, pattern = split_pattern(folder.absolute())
            matches = sorted(path for path in root.glob(pattern) if path.is_dir())
            if not matches:
                raise UserError(f"runs: no folder fits {given}")
            found += [(str(match), match) for match in matches]
        else:
            found.append((given, recorded_folder(given, settings.tracking)))
    twice = [str(folder) for folder, count in Counter(folder.resolve() for _, folder in found).items() if count > 1]
    if twice:
        raise UserError(f"runs: {twice[0]} stands there twice")
    if len(found) < 2:
        raise UserError("runs: one run alone cannot be compared", "name two or more: runs=[FOLDER,FOLDER]")
    return found


def split_pattern(path: Path) -> tuple[Path, str]:
    """The folder above the first part that is a pattern, and the rest."""
    first = next(index for index, part in enumerate(path.parts) if any(letter in part for letter in PATTERN))
    return Path(*path.parts[:first]), str(Path(*path.parts[first:]))


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell them all apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def require_names(names: Sequence[str], runs: int) -> None:
    """Raise UserError unless there is one name for each run, each another."""
    if len(names) != runs:
        raise UserError(f"names: {len(names)} for {runs} runs")
    if len(set(names)) < len(names):
        raise UserError("names: a name stands there twice")


def reference_of(wanted: str | None, names: Sequence[str], given: Sequence[tuple[str, Path]]) -> str:
    """The name of the reference run; raises UserError."""
    if wanted is None:
        return names[0]
    for name, (word, folder) in zip(names, given, strict=True):
        if wanted in (name, word) or Path(wanted).expanduser().absolute() == folder:
            return name
    raise UserError(f"reference={wanted} is none of the runs", did_you_mean(wanted, names))
