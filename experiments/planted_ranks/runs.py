"""One method on one teacher."""

from dataclasses import replace

from experiments.planted_ranks.baselines import LORA_STEPS, OTHERS, adalora_path, lora_paths
from experiments.planted_ranks.points import Point
from experiments.planted_ranks.sora import SORA, sora_path
from sorakit.tasks.planted import (
    Planted,
    PlantedConfig,
    PlantedTransformerConfig,
    compress,
    plant,
    plant_transformer,
)

TEACHERS = ("mixed", "null", "transformer")
METHODS = (*SORA, *OTHERS)
TRANSFORMER_METHODS = ("sgd_unit", "adamw_metric_unit", "lora_svd", "lora_magnitude")
TRANSFORMER_FIRST = 0.05  # lambda; its loss is a sum over tokens too
TRANSFORMER_RATIO = 1.5
TRANSFORMER_DENSE_STEPS = 600
TRANSFORMER_STAGE_STEPS = 100
TRANSFORMER_LORA_STEPS = 1000
NULL_RANKS = (0,) * len(PlantedConfig().ranks)


def make(teacher: str, seed: int) -> Planted:
    """Return the task of a teacher."""
    if teacher == "transformer":
        return plant_transformer(PlantedTransformerConfig(), seed)
    ranks = NULL_RANKS if teacher == "null" else PlantedConfig().ranks
    return plant(PlantedConfig(ranks=ranks), seed)


def run(method: str, teacher: str, seed: int) -> dict[str, list[Point]]:
    """Return the path of a method; LoRA is trained once for both of its prunings."""
    planted = make(teacher, seed)
    is_full_batch = method not in SORA or SORA[method].batch_size == 0
    is_compressed = is_full_batch and teacher != "transformer"
    train = compress(planted.train) if is_compressed else planted.train
    if method in SORA:
        variant = SORA[method]
        if teacher != "transformer":
            return {method: sora_path(planted, train, variant, seed=seed)}
        variant = replace(variant, first=TRANSFORMER_FIRST, ratio=TRANSFORMER_RATIO)
        points = sora_path(
            planted,
            train,
            variant,
            seed=seed,
            dense_steps=TRANSFORMER_DENSE_STEPS,
            stage_steps=TRANSFORMER_STAGE_STEPS,
        )
        return {method: points}
    if method == "adalora":
        points = adalora_path(planted, train, make_base=lambda: make(teacher, seed).base, seed=seed)
        return {method: points}
    steps = LORA_STEPS if teacher != "transformer" else TRANSFORMER_LORA_STEPS
    return lora_paths(planted, train, seed=seed, steps=steps)
