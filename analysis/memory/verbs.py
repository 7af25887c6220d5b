# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""The measures of memorization as verbs of the command line: tables, a block of text, a figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.load import FLOOR, NULL_FLOOR, PATH, RunSet
from analysis.memory import blocks, figures
from analysis.memory.bits import bits_table
from analysis.memory.counterfactual import counterfactual_memorization, influence
from analysis.memory.examples import OLDER, example_table
from analysis.memory.forgetting import lost_examples, mean_lost, seed_agreement, spectrum
from analysis.memory.membership import membership_table
from analysis.memory.noise import noise_curves, noise_forgetting
from analysis.memory.validity import validity_table
from sorakit.records import read_meta

Tables = Mapping[str, pd.DataFrame]
"""Name -> table; the first one is what the figure draws."""

_SHUFFLED = "shuffled_labels"


@dataclass(frozen=True, kw_only=True)
class MemoryVerb:
    """One measure of memorization.

    Attributes:
        text: What the verb does, without a capital and a full stop.
        title: Its heading.
        tables: Runs and their examples -> its tables.
        block: Its tables -> what there is to say of them.
        figure: Its tables -> its figure; null where a table says it all.
    """

    text: str
    title: str
    tables: Callable[[RunSet, pd.DataFrame], Tables]
    block: Callable[[Tables], blocks.Block]
    figure: Callable[[Tables], Figure] | None = None


def train_sizes(runs: RunSet) -> dict[str, int]:
    """Return run id -> training examples; of an older record, those that the settings name."""
    sizes: dict[str, int] = {}
    for row in runs.runs.to_dict("records"):
        data = read_meta(_folder(row)).get("data") or {}
        config = runs.configs[str(row["run_id"])]["task"]
        size = data.get("train") or config.get("train_examples") or config["memorization_examples"]
        sizes[str(row["run_id"])] = int(size)
    return sizes


def _folder(row: Mapping[Any, Any]) -> Path:
    return Path(str(row["path"]))


def memory_examples(runs: RunSet) -> pd.DataFrame:
    """Return the examples of every run that a measure of memorization looks at."""
    return example_table(runs, roles=[PATH, FLOOR, NULL_FLOOR, _SHUFFLED])


def memory_blocks(runs: RunSet, *, texts: pd.DataFrame | None = None) -> list[blocks.Block]:
    """Return what every measure has to say of `runs`; of one that has nothing, why.

    Args:
        runs: What was loaded.
        texts: Rows of `read_texts`, of runs of one dataset: the first and the last lost are listed.
    """
    try:
        examples = memory_examples(runs)
    except ValueError as error:
        return [_without(blocks.TITLE, error)]
    found: list[blocks.Block] = []
    for verb in MEMORY_VERBS.values():
        try:
            tables = verb.tables(runs, examples)
            found.append(verb.block(tables))
            if verb is MEMORY_VERBS["forgetting"] and texts is not None:
                found.append(blocks.texts_block(mean_lost(tables["examples"]), texts))
        except ValueError as error:
            found.append(_without(verb.title, error))
    older = examples.attrs[OLDER]
    if older:
        said = f"{len(older)} runs of an older release record too little of their examples."
        found.append(blocks.Block(title="Left out", hint="", heads=[], rows=[], sentences=[said]))
    return found


def _without(title: str, reason: ValueError) -> blocks.Block:
    return blocks.Block(title=title, hint="", heads=[], rows=[], sentences=[str(reason)])


def _noise(_: RunSet, examples: pd.DataFrame) -> Tables:
    curves = noise_curves(examples[examples["role"].isin([PATH, FLOOR])])
    return {"curves": curves, "forgetting": noise_forgetting(curves)}


def _forgetting(runs: RunSet, examples: pd.DataFrame) -> Tables:
    lost = lost_examples(_of_paths(examples))
    return {
        "spectrum": spectrum(lost, runs.stages),
        "examples": lost,
        "agreement": seed_agreement(lost),
    }


def _bits(runs: RunSet, examples: pd.DataFrame) -> Tables:
    return {"bits": bits_table(examples, train_sizes(runs))}


def _membership(_: RunSet, examples: pd.DataFrame) -> Tables:
    return {"membership": membership_table(_of_paths(examples))}


def _counterfactual(_: RunSet, examples: pd.DataFrame) -> Tables:
    return {
        "memorization": counterfactual_memorization(examples),
        "influence": influence(examples),
    }


def _validity(_: RunSet, examples: pd.DataFrame) -> Tables:
    return {"validity": validity_table(examples)}


def _of_paths(examples: pd.DataFrame) -> pd.DataFrame:
    paths = examples[examples["role"] == PATH]
    if paths.empty:
        raise ValueError("`RUNS` must hold a path with records of its examples, got none.")
    return paths


MEMORY_VERBS: dict[str, MemoryVerb] = {
    "noise": MemoryVerb(
        title="Label noise",
        text="tell at which number of parameters label noise is forgotten, and whether validation "
        "rises there",
        tables=_noise,
        block=lambda of: blocks.noise_block(of["curves"], of["forgetting"]),
        figure=lambda of: figures.noise_figure(of["curves"]),
    ),
    "forgetting": MemoryVerb(
        title="Forgetting, example by example",
        text="tell where every example is lost, and how alike seeds are",
        tables=_forgetting,
        block=lambda of: blocks.forgetting_block(of["examples"], of["spectrum"], of["agreement"]),
        figure=lambda of: figures.forgetting_figure(of["spectrum"]),
    ),
    "bits": MemoryVerb(
        title="Bits",
        text="tell how many bits of the labels an adapter holds, an example and a parameter",
        tables=_bits,
        block=lambda of: blocks.bits_block(of["bits"]),
        figure=lambda of: figures.bits_figure(of["bits"]),
    ),
    "membership": MemoryVerb(
        title="Membership",
        text="tell how well an attack tells training examples from others, along the path",
        tables=_membership,
        block=lambda of: blocks.membership_block(of["membership"]),
        figure=lambda of: figures.membership_figure(of["membership"]),
    ),
    "counterfactual": MemoryVerb(
        title="Counterfactual memorization",
        text="tell from runs on random subsets what training on each example does",
        tables=_counterfactual,
        block=lambda of: blocks.counterfactual_block(of["memorization"], of["influence"]),
        figure=lambda of: figures.counterfactual_figure(of["memorization"]),
    ),
    "validity": MemoryVerb(
        title="Which measure to trust",
        text="tell which of the measures can be trusted, from runs in which the answer is known",
        tables=_validity,
        block=lambda of: blocks.validity_block(of["validity"]),
    ),
}
"""In the order of `--help`."""
