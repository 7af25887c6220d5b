"""Which controls a dataset has: what a curve must not be shown without."""

import pandas as pd

from analysis.load import DATASET_KEYS, DEFAULT_SETTING, FLOOR, HOLD_DENSE, PATH

RANDOM_MASK = "random_mask"
REQUIRED_CONTROLS = {
    FLOOR: "how much of a score needs no adapter is unknown, and no gain is defined",
    HOLD_DENSE: "a change along the path may be that of longer training",
    RANDOM_MASK: "whether the ranks that are left matter is not known",
}
"""Control -> what cannot be said without it."""


def dataset_name(task: object, backbone: object, setting: object, variant: object = "") -> str:
    """Return the name of a dataset in sentences and tables."""
    parts = [str(backbone).rstrip("/").rsplit("/", 1)[-1]]
    parts += [str(part) for part in (setting, variant) if part not in (DEFAULT_SETTING, "")]
    return f"{task} ({', '.join(parts)})"


def missing_controls(stages: pd.DataFrame) -> list[str]:
    """Return one sentence for every dataset with a path and control that some seed lacks."""
    sentences: list[str] = []
    for (task, backbone, setting), group in stages.groupby(DATASET_KEYS, sort=True):
        seeds = {role: set(rows["seed"]) for role, rows in group.groupby("role")}
        for role, consequence in REQUIRED_CONTROLS.items():
            missing = sorted(seeds.get(PATH, set()) - seeds.get(role, set()))
            if missing:
                which = ", ".join(str(seed) for seed in missing)
                some = f" for seed {which}" if role in seeds else ""
                name = dataset_name(task, backbone, setting)
                sentences.append(f"{name} has no {role} run{some}: {consequence}.")
    return sentences
