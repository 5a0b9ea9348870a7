"""What must not be written down: passwords in addresses, secret parameters and command-line values."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"

_USER_INFO = re.compile(r"(?<=://)([^/@\s:]*):([^/\s]*)@")
_TOKEN_AS_USER = re.compile(r"(?<=://)[^/@\s:]{20,}@")
_QUERY = re.compile(r"([?&][^=&\s]*(?:password|passwd|pwd|secret|token|key|signature|sig)=)[^&\s]+", re.IGNORECASE)
_SECRET_NAME = re.compile(
    r"(?:^|[._/-])(?:password|passwd|pwd|secret|token|api_?key|access_?key|secret_?key|credentials?)$", re.IGNORECASE
)


def mask(text: str) -> str:
    """Replace passwords inside addresses: ``http://me:pw@host`` becomes ``http://me:***@host``."""
    text = _USER_INFO.sub(rf"\1:{HIDDEN}@", text)
    text = _TOKEN_AS_USER.sub(f"{HIDDEN}@", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def is_secret_name(name: str) -> bool:
    """True for names whose value is a secret: ``tracking.password``, ``api_key``; not ``n_tokens``."""
    return _SECRET_NAME.search(name) is not None


def mask_command(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets, in both spellings: ``token=x`` and ``--token x``."""
    masked = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = is_secret_name(name.lstrip("+~-"))
        if hide_next and not argument.startswith("-"):
            masked.append(HIDDEN)
        elif secret and equals:
            masked.append(f"{name}={HIDDEN}")
        else:
            masked.append(mask(argument))
        hide_next = secret and not equals
    return masked
