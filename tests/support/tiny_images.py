"""A tiny image classifier with its processor, drawn anew, and a folder of small pictures."""

from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2ForImageClassification

SIDE = 16
CLASSES = ("dark", "light")


def picture(label: int, *, seed: int) -> Image.Image:
    """Return noise, darker for class 0 than for class 1."""
    noise = np.random.default_rng(seed).integers(0, 100, (SIDE, SIDE), dtype=np.uint8)
    return Image.fromarray(noise + 120 * np.uint8(label))


def write_image_model(folder: Path) -> Path:
    """Write a vision transformer of two layers of width 16 without a head, and its processor."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIDE,
        patch_size=8,
    )
    Dinov2ForImageClassification(config).dinov2.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    return folder


def write_image_folder(folder: Path, *, num_train: int = 16, num_validation: int = 8) -> Path:
    """Write an imagefolder: SPLIT/CLASS/NUMBER.png."""
    for split, count, first in (("train", num_train, 0), ("validation", num_validation, 1000)):
        for number in range(count):
            file = folder / split / CLASSES[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(number % 2, seed=first + number).save(file)
    return folder


def write_image_parquet(folder: Path) -> Path:
    """Write the same pictures as parquet files with an `Image` and a `ClassLabel` column."""
    folder.mkdir(parents=True, exist_ok=True)
    features = Features({"picture": ImageFeature(), "label": ClassLabel(names=list(CLASSES))})
    splits = {
        split: Dataset.from_dict(
            {
                "picture": [picture(number % 2, seed=first + number) for number in range(count)],
                "label": [number % 2 for number in range(count)],
            },
            features=features,
        )
        for split, count, first in (("train", 16, 0), ("validation", 8, 1000))
    }
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet")
    return folder
