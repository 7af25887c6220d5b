"""Trainable weights and optimizer state, set aside and put back: a refit that is a side branch."""

import copy
from typing import Any

import lightning.pytorch as pl
import torch

from sorakit.method.optimizer import ProxAdamW

Snapshot = dict[str, Any]
"""Plain dictionaries of tensors and numbers, as a checkpoint can hold them."""


def take_snapshot(module: pl.LightningModule, optimizer: ProxAdamW) -> Snapshot:
    """Return copies of everything that training changes, on the CPU."""
    weights = {
        name: p.detach().cpu().clone() for name, p in module.named_parameters() if p.requires_grad
    }
    return {"weights": weights, "optimizer": copy.deepcopy(optimizer.state_dict())}


@torch.no_grad()
def put_back(snapshot: Snapshot, module: pl.LightningModule, optimizer: ProxAdamW) -> None:
    """Make a module and its optimizer what they were when the snapshot was taken."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(snapshot["weights"][name])
    optimizer.load_state_dict(snapshot["optimizer"])
