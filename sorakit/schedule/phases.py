"""The phases of a stage: what acts in each, and what ends it."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from sorakit.config import StageConfig, XiConfig

PhaseName = Literal["dense", "compress", "refit"]
EndRule = Literal["convergence", "length", "stationary", "target"]

LENGTH = "length"
STATIONARY = "stationary"
TARGET = "target"


@runtime_checkable
class Traits(Protocol):
    """What a control changes of the schedule; `sorakit.controls` has them."""

    rises: bool
    """Whether xi rises after the dense stage."""
    trains: bool
    """Whether sparsifying stages train at all."""
    restarts: bool
    """Whether every stage is trained like a dense stage, from the start."""
    refits: bool
    """Whether what a stage leaves is refitted although nothing is trained before."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a stage that is trained by one rule.

    Attributes:
        name: dense, compress or refit.
        ends: What ends it: convergence of the training loss, its length, gates at a fixed point of
            the training step, or the target count of the stage.
        thresholds: Whether xi acts. Where it does not, xi is 0 and gates that are zero stay zero.
        trains: Whether anything but the threshold moves the weights.
    """

    name: PhaseName
    ends: EndRule
    thresholds: bool = True
    trains: bool = True


DENSE = Phase(name="dense", ends="convergence")
REFIT = Phase(name="refit", ends="convergence", thresholds=False)


def phases_of(
    stage: int, *, xi: XiConfig, config: StageConfig, traits: Traits
) -> tuple[Phase, ...]:
    """Return the phases of a stage, in their order.

    Stage 0 is one dense phase. A sparsifying stage compresses and then, unless `stage.refit` is
    none or its control trains nothing at all, refits the ranks that are left (the relaxed Lasso of
    Meinshausen 2007).

    Args:
        stage: 0 is dense.
        xi: Thresholds.
        config: Sparsifying stages.
        traits: What the control changes.
    """
    if stage == 0:
        return (DENSE,)
    refits = config.refit != "none" and (traits.trains or traits.refits)
    return (_compress(xi, config, traits), *([REFIT] if refits else []))


def _compress(xi: XiConfig, config: StageConfig, traits: Traits) -> Phase:
    if traits.restarts:
        return Phase(name="compress", ends="convergence")
    ends: EndRule = "length"
    if xi.spacing == "target" and traits.rises:
        ends = "target"
    elif config.until == "stationary" and traits.trains:
        ends = "stationary"
    return Phase(name="compress", ends=ends, trains=traits.trains)
