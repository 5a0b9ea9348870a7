"""The mask of a BIDS case, found by the entities of its name or by a template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.readers.bids_names import BidsFile, images_in, same
from pipeline.data.readers.sources import inside, listed, require_root
from pipeline.errors import UserError

FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass
class Masks:
    """Masks below ``root/derivative/sub-*/[ses-*/]datatype`` (of ``root`` itself where ``derivative`` is None).

    ``mask`` either gives a ``suffix`` and the entities that the name must have, as ``{suffix: dseg, desc: lesion}``
    (and ``datatype`` where the folder is called otherwise): other entities that mask and reference image both have
    must agree. Or it gives a ``template`` of a path below the derivative with ``{sub}``, ``{ses}``, ``{run}`` and so
    on, each with its name as in sub-01: such a file must be there.
    """

    root: Path
    derivative: str | None
    datatype: str
    mask: Mapping[str, Any]
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.root
        if self.derivative is not None:
            self.folder = require_root(
                inside(self.root, self.derivative, "data.bids.derivative"), "data.bids.derivative"
            )
        if ("template" in self.mask) == ("suffix" in self.mask):
            raise UserError(
                f"data.bids.mask={dict(self.mask)}: needs either a suffix or a template",
                "as in {suffix: dseg, desc: lesion} or {template: '{sub}/anat/{sub}_mask.nii.gz'}",
            )
        if "template" in self.mask and len(self.mask) > 1:
            raise UserError("data.bids.mask: a template stands alone")

    def find(self, subject: str, session: str | None, images: Mapping[str, BidsFile]) -> Path | None:
        """The mask of a case with these images; None where there is none. Raises UserError where there are several."""
        reference = next(iter(images.values()))
        if "template" in self.mask:
            return self._filled(str(self.mask["template"]), reference)
        wanted = {key: str(value) for key, value in self.mask.items() if key not in ("suffix", "datatype")}
        place = self.folder / subject / (session or "") / str(self.mask.get("datatype", self.datatype))
        fit = [
            file
            for file in images_in(place)
            if file.suffix == self.mask["suffix"]
            and file.has(wanted)
            and all(
                same(file.entities[key], value)
                for key, value in reference.entities.items()
                if key in file.entities and key not in wanted
            )
        ]
        if len(fit) > 1:
            raise UserError(
                f"{place}: {len(fit)} masks for {reference.path.name}: {listed([file.path.name for file in fit])}",
                "choose one by its entities: data.bids.mask={suffix: ..., desc: ...}",
            )
        return fit[0].path if fit else None

    def _filled(self, template: str, reference: BidsFile) -> Path:
        lacking = [name for name in FIELD.findall(template) if name not in reference.entities]
        if lacking:
            raise UserError(
                f"data.bids.mask.template={template}: {reference.path.name} has no {listed(lacking)}",
                f"it has {listed(list(reference.entities))}",
            )
        name = FIELD.sub(lambda match: f"{match.group(1)}-{reference.entities[match.group(1)]}", template)
        return inside(self.folder, name, "data.bids.mask.template")
