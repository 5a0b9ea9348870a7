"""Mistakes that a user can mend: shown as a cause and remedies, never as a traceback."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What torch's CPU allocator and oneDNN say; "a primitive descriptor" that could not be created is another fault.
NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|could not create a (memory|primitive(?! desc))")


class UserError(Exception):
    """One mistake.

    ``cause`` names the file (or key) and the fault in one line; ``remedies`` say what to do, one line each.
    """

    def __init__(self, cause: str, *remedies: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedies = remedies

    def __str__(self) -> str:
        return "\n".join([self.cause, *(f"    {remedy}" for remedy in self.remedies)])


class UserErrors(UserError):
    """Several mistakes found together."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        count = f"{len(errors)} mistakes" if len(errors) != 1 else "1 mistake"
        super().__init__(count)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(f"- {error}" for error in self.errors)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


def one_line(text: str) -> str:
    """The first line of a message, shortened."""
    return " ".join(text.splitlines()[0].split())[:200] if text.strip() else "no memory left"
