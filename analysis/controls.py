"""Which controls a dataset has: what a curve must not be shown without."""

from collections.abc import Sequence

import pandas as pd

from analysis.load import (
    DATASET_KEYS,
    FLOOR,
    HOLD_DENSE,
    KEYS,
    PATH,
    controls_of,
)
from sorakit.records.matching import DEFAULT_SETTING
from sorakit.variants import CONTROLS

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


def block_of(stages: pd.DataFrame, names: Sequence[object]) -> pd.DataFrame:
    """Return the stages of the paths of one block, and those of their floors and controls.

    Args:
        stages: Stage table.
        names: Values of `KEYS`.

    Raises:
        ValueError: If two runs of one control belong to one path.
    """
    own = (stages["role"] == PATH) & (stages[KEYS] == list(names)).all(axis=1)
    block = stages[own | controls_of(stages, stages[own])]
    controls = block[~block["role"].isin([PATH, FLOOR])].drop_duplicates("run_id")
    twice = controls[controls.duplicated(["role", "seed"], keep=False)]
    if len(twice):
        role, seed = twice.iloc[0][["role", "seed"]]
        run_ids = twice.loc[(twice["role"] == role) & (twice["seed"] == seed), "run_id"]
        raise ValueError(
            f"`RUNS` must hold one {role} run for {dataset_name(*names)}, seed {seed}, got "
            f"{', '.join(run_ids)}. Name only the folders of runs that belong together."
        )
    return block


def lacking(block: pd.DataFrame) -> dict[str, str]:
    """Return floor or control -> which paths of a block lack it: "", all, or " for seeds 1, 2".

    Args:
        block: Stages of the paths of one block, and those of their floors and controls.
    """
    seeds = set(block.loc[block["role"] == PATH, "seed"])
    found: dict[str, str] = {}
    for role in REQUIRED_CONTROLS:
        missing = sorted(seeds - set(block.loc[block["role"] == role, "seed"]))
        if missing:
            noun = "seed" if len(missing) == 1 else "seeds"
            which = f" for {noun} {', '.join(map(str, missing))}"
            found[role] = "" if len(missing) == len(seeds) else which
    return found


def missing_controls(stages: pd.DataFrame) -> list[str]:
    """Return one sentence for every curve whose floor or control some seed lacks.

    A curve is the paths of one dataset and one configuration.
    """
    sentences: list[str] = []
    for names, paths in stages[stages["role"] == PATH].groupby(KEYS, sort=True):
        block = pd.concat([paths, stages[controls_of(stages, paths)]])
        sentences += [
            f"{dataset_name(*names)} has no {role} run{which}: {REQUIRED_CONTROLS[role]}."
            for role, which in lacking(block).items()
        ]
    return sentences


def configuration_notes(stages: pd.DataFrame) -> list[str]:
    """Return sentences on datasets with several configurations, and on controls of none of them."""
    notes: list[str] = []
    is_path = stages["role"] == PATH
    for names, paths in stages[is_path].groupby(DATASET_KEYS, sort=True):
        number = paths["variant"].nunique()
        if number > 1:
            name = dataset_name(*names)
            notes.append(f"The paths of {name} have {number} configurations, compared apart.")
    is_control = stages["role"].isin([FLOOR, *CONTROLS.names])  # and no other method
    alone = stages[is_control & ~controls_of(stages, stages[is_path])].drop_duplicates("run_id")
    for names, runs in alone.groupby([*DATASET_KEYS, "role"], sort=True):
        *dataset, role = names
        notes.append(
            f"{len(runs)} {role} {'run' if len(runs) == 1 else 'runs'} of "
            f"{dataset_name(*dataset)} {'belongs' if len(runs) == 1 else 'belong'} to no path here "
            "(another configuration, method version or seed), and no curve is compared with "
            f"{'it' if len(runs) == 1 else 'them'}: {', '.join(sorted(runs['run_id']))}."
        )
    return notes
