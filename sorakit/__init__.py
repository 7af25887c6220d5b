"""SoRA for Hugging Face models: memorization and generalization against adapter sparsity.

Names are resolved when they are first used (PEP 562): `import sorakit` imports no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sorakit.method.optimizer import ProxAdamW as ProxAdamW
    from sorakit.method.optimizer import ProxSGD as ProxSGD
    from sorakit.method.prox import released_threshold as released_threshold
    from sorakit.method.prox import soft_threshold as soft_threshold
    from sorakit.method.prune import export_lora as export_lora
    from sorakit.method.prune import merge as merge
    from sorakit.method.prune import nonzero_ranks as nonzero_ranks
    from sorakit.method.prune import num_nonzero_params as num_nonzero_params
    from sorakit.method.tuner import SoraConfig as SoraConfig
    from sorakit.method.tuner import gates as gates
    from sorakit.records import Run as Run
    from sorakit.records import load_run as load_run
    from sorakit.studies.conduct import study as study
    from sorakit.studies.study import Study as Study
    from sorakit.studies.study import load_study as load_study
    from sorakit.training.module import AdaptationModule as AdaptationModule
    from sorakit.training.trainer_callback import SoraTrainerCallback as SoraTrainerCallback
    from sorakit.training.xi_scheduler import XiScheduler as XiScheduler

_HOMES = {
    "AdaptationModule": "sorakit.training.module",
    "ProxAdamW": "sorakit.method.optimizer",
    "ProxSGD": "sorakit.method.optimizer",
    "Run": "sorakit.records",
    "SoraConfig": "sorakit.method.tuner",
    "SoraTrainerCallback": "sorakit.training.trainer_callback",
    "Study": "sorakit.studies.study",
    "XiScheduler": "sorakit.training.xi_scheduler",
    "export_lora": "sorakit.method.prune",
    "gates": "sorakit.method.tuner",
    "load_run": "sorakit.records",
    "load_study": "sorakit.studies.study",
    "merge": "sorakit.method.prune",
    "nonzero_ranks": "sorakit.method.prune",
    "num_nonzero_params": "sorakit.method.prune",
    "released_threshold": "sorakit.method.prox",
    "soft_threshold": "sorakit.method.prox",
    "study": "sorakit.studies.conduct",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # one list of public names
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sorakit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
