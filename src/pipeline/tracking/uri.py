"""Where runs are recorded: the address of the MLflow store and the command that opens its page."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking.secrets import mask

_DATABASES = ("postgresql", "mysql", "mssql")
# Where MLflow can keep artifacts: the module that this needs here, and what to install for it.
_ARTIFACTS = {
    "file": None,
    "s3": ("boto3", "-e '.[server]', in the checkout"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
    "hdfs": ("pyarrow", "pyarrow"),
}


def store_uri(uri: str | None, default: Path) -> str:
    """The address of the store, absolute; ``default`` is the sqlite file used when no address is given.

    Raises ``UserError`` for an address that MLflow cannot use. Nothing is opened.
    """
    if uri is None:
        return _sqlite(default)
    scheme, separator, rest = uri.partition("://")
    if separator and (scheme in ("http", "https") or scheme.partition("+")[0] in _DATABASES) and rest.strip("/"):
        return uri
    if scheme == "sqlite" and separator and len(rest) > 1 and rest.startswith("/") and rest != "/:memory:":
        return _sqlite(Path(rest[1:]))
    raise UserError(
        f"tracking.uri={mask(uri)} is not an address of an MLflow store",
        "Leave tracking.uri out to record in a local sqlite file.",
        "Or give a server (http://host:5000), a file (sqlite:////absolute/mlflow.db) or a database (postgresql://...).",
    )


def artifact_root(location: str | None) -> str | None:
    """Where new experiments keep their artifacts, as a URI; None stays None: where the store keeps them.

    Raises ``UserError`` for a place that MLflow cannot use from here, and for a password in it: it would be recorded.
    """
    if location is None:
        return None
    scheme, separator, rest = location.partition("://")
    if not separator and Path(location).is_absolute():
        return Path(location).as_uri()
    if not separator or scheme not in _ARTIFACTS or not rest.strip("/"):
        raise UserError(
            f"tracking.artifacts={mask(location)} is not a place for artifacts",
            "Leave it out to keep them where the tracking server does.",
            f"Or give an absolute path, or a URL: {', '.join(f'{known}://' for known in _ARTIFACTS)}",
        )
    if ":" in rest.partition("/")[0].rpartition("@")[0] or "?" in rest:
        raise UserError(
            f"tracking.artifacts={mask(location)}: credentials do not belong into the address, which is recorded",
            "Give them as the storage's own client reads them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    needs = _ARTIFACTS[scheme]
    if needs is not None and not _installed(needs[0]):
        raise UserError(
            f"tracking.artifacts={location}: {needs[0]} is not installed, which {scheme}:// needs",
            f"Install it: pip install {needs[1]}",
        )
    return location.rstrip("/")


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite address, None for any other address."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def open_page_command(uri: str) -> str:
    """The shell command that shows the MLflow page of this store."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    command = [str(python), "-m"]
    if uri.startswith(("http://", "https://")):
        scheme, _, rest = uri.partition("://")
        host, slash, path = rest.partition("/")
        command += ["webbrowser", f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"]
    else:
        command += ["mlflow", "ui", "--backend-store-uri", mask(uri)]
    return shlex.join(command)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _sqlite(path: Path) -> str:
    absolute = path.expanduser().resolve()
    # SQLAlchemy decodes %20 in a path from version 2.1 on, and not before.
    if "?" in str(absolute) or "%" in str(absolute):
        raise UserError(
            f"{absolute}: an MLflow sqlite file cannot have '?' or '%' in its path",
            "Choose another file: tracking.uri=sqlite:////absolute/mlflow.db",
        )
    return f"sqlite:///{absolute}"
