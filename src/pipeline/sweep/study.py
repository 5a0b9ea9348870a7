"""The study of a sweep in Optuna: where it is stored, how it samples and prunes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.config.schema_sweep import Sweep
from pipeline.errors import UserError
from pipeline.randomness import draw_seed
from pipeline.sweep.objectives import Objective, watched
from pipeline.sweep.parameters import Number
from pipeline.sweep.space import Space
from pipeline.tracking.secrets import mask

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

STUDY_FILE = "study.db"
LONGEST_WAIT = 120  # s for another process that writes into the sqlite file
POSTGRESQL = "postgresql+psycopg"


def require_optuna() -> None:
    """Raise UserError where Optuna is not installed; let it say only what concerns a user."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError(
            "sweep needs optuna, which is not installed", "in the checkout: pip install -e '.[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage_address(asked: str | None) -> str | None:
    """The address of a database for SQLAlchemy, None for the sqlite file of a sweep.

    Raises UserError for another kind of database, and for an address that holds a password.
    """
    if asked is None:
        return None
    scheme, separator, rest = asked.partition("://")
    if scheme not in ("postgresql", POSTGRESQL) or not separator or not rest.strip("/"):
        raise UserError(
            f"sweep.storage={mask(asked)}: is no address of a PostgreSQL database",
            "sweep.storage=postgresql://user@host/database",
            "or leave it out: sqlite in the sweep's folder",
        )
    if mask(asked) != asked:
        raise UserError(
            f"sweep.storage={mask(asked)}: holds a password, which would be written down",
            "set PGPASSWORD (or a file ~/.pgpass) and leave it out of the address",
        )
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        cause = "sweep.storage=postgresql://... needs psycopg, which is not installed"
        raise UserError(cause, "in the checkout: pip install -e '.[sweep]'") from None
    return f"{POSTGRESQL}://{rest}"


def open_study(address: str, name: str, objectives: Sequence[Objective], pruner: BasePruner) -> Study:
    """The study of this name, made where it is not there. Raises UserError where the storage cannot be used."""
    import optuna

    sqlite = address.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": LONGEST_WAIT}} if sqlite else {"pool_pre_ping": True}
    with storage_errors(address):
        storage = optuna.storages.RDBStorage(address, engine_kwargs=options)
        return optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[objective.direction for objective in objectives],
            pruner=pruner,
            load_if_exists=True,
        )


@contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Tell as UserError what is wrong with the storage."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from pipeline.errors import one_line

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        first: BaseException = error
        while (earlier := first.__cause__ or first.__context__) is not None:
            first = earlier
        raise UserError(
            f"the study at {mask(address)} cannot be used: {one_line(mask(str(first)))}",
            "once that is mended the same command goes on with the sweep",
        ) from error


def sampler_of(sweep: Sweep, space: Space, seed: int, number: int) -> BaseSampler:
    """What draws trial ``number``: a function of the seed, the number and the trials before, so it can be redone."""
    from optuna.samplers import CmaEsSampler, RandomSampler, TPESampler

    drawn = draw_seed(seed, "sweep", number) % (1 << 32)
    if sweep.sampler == "tpe":
        return TPESampler(seed=drawn, n_startup_trials=sweep.startup, multivariate=True, group=True, constant_liar=True)
    if sweep.sampler == "cmaes":
        return CmaEsSampler(
            seed=drawn,
            n_startup_trials=sweep.startup,
            independent_sampler=RandomSampler(seed=drawn),
            warn_independent_sampling=False,
        )
    return RandomSampler(seed=drawn)


def pruner_of(sweep: Sweep, folds: int) -> BasePruner:
    """What ends trials before their time; one step is ``1 / pruning.points`` of the training of a fold."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    how = sweep.pruning
    if how.method == "median":
        return MedianPruner(n_startup_trials=how.startup, n_warmup_steps=how.warmup + 1)
    if how.method == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=folds * how.points, reduction_factor=how.reduction)
    return NopPruner()


def require_possible(sweep: Sweep, space: Space, objectives: Sequence[Objective], task: str) -> None:
    """Raise UserError where sampler, pruner and objectives do not go together."""
    numbers = [p for p in space.parameters if isinstance(p, Number) and not p.when and p.low < p.high]
    if sweep.sampler == "cmaes" and (len(numbers) < 2 or len(objectives) > 1):
        needs = "one objective" if len(objectives) > 1 else "two numbers in the space that are always drawn"
        raise UserError(f"sweep.sampler=cmaes needs {needs}", "use sweep.sampler=tpe")
    if sweep.pruning.method == "none":
        return
    if len(objectives) > 1:
        raise UserError(
            f"sweep.pruning.method={sweep.pruning.method} compares trials by one objective; here are {len(objectives)}",
            "set sweep.pruning.method=none",
        )
    if objectives[0].metric != watched(task):
        raise UserError(
            f"sweep.pruning.method={sweep.pruning.method} watches the validation's {watched(task)}, and "
            f"sweep.objectives asks for {objectives[0].metric}",
            f"set sweep.pruning.method=none, or the objective to {watched(task)}",
        )
