"""Planted ranks: a regression whose every adapted matrix has a rank that is known.

A calibration task: does a method find the rank that is there? Each linear layer of the base model
has its own observed output and its own well-conditioned inputs, so the rank of its update is
identifiable: `y = (W + D) x + noise`, with D of the planted rank. Point on the path, rank and score
are pure functions beside it.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from typing_extensions import override


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """Sizes of the task.

    The defaults leave room for the choice of a point: where the L1 removes all noise it shrinks
    every singular value by one `noise_level`, which costs `sum(ranks) * noise_level**2` = 0.23
    `noise**2` of held-out loss, less than its standard error of 0.28 `noise**2`; and losing the
    smallest singular value costs `(smallest * noise_level)**2` = 0.5 `noise**2`, more than that.
    """

    ranks: tuple[int, ...] = (0, 1, 2, 4, 8, 0, 1, 2, 4, 8)
    """Planted rank of every matrix."""
    d_in: int = 32
    """Inputs of every matrix."""
    d_out: int = 32
    """Outputs of every matrix."""
    num_train: int = 16_384
    """Training examples."""
    num_held_out: int = 8_192
    """Held-out examples."""
    noise: float = 1.0
    """Standard deviation of the noise on every output."""
    smallest: float = 8.0
    """Smallest planted singular value, in units of `noise_level`. At least 5."""
    largest: float = 16.0
    """Largest planted singular value of matrices of rank 2 and more, in units of `noise_level`."""

    def __post_init__(self) -> None:
        limit = min(self.d_in, self.d_out)
        if not self.ranks or not all(0 <= rank <= limit for rank in self.ranks):
            raise ValueError(f"`ranks` must be in [0, {limit}], got {self.ranks}.")
        if not self.num_train >= 2 * self.d_in:
            raise ValueError(
                f"`num_train` must be >= 2 * d_in = {2 * self.d_in}, got {self.num_train}."
            )
        if not self.num_held_out >= 2:
            raise ValueError(f"`num_held_out` must be >= 2, got {self.num_held_out}.")
        if not self.noise > 0:
            raise ValueError(f"`noise` must be > 0, got {self.noise}.")
        if not 5 <= self.smallest <= self.largest:
            raise ValueError(
                f"`smallest` must be in [5, largest = {self.largest}], got {self.smallest}. "
                "A smaller one is not identifiable."
            )

    @property
    def noise_level(self) -> float:
        """Largest singular value that noise alone gives an unpenalised estimate of an update.

        `noise * (sqrt(d_in) + sqrt(d_out)) / sqrt(num_train)`, the edge of the spectrum of a
        Gaussian matrix. For a loss of squared errors summed over outputs the gradient of a rank
        with unit factors and no signal is at most twice that: the L1 weight that removes it.
        """
        return self.noise * (math.sqrt(self.d_in) + math.sqrt(self.d_out)) / self.num_train**0.5


@dataclass(frozen=True, kw_only=True)
class PlantedTransformerConfig:
    """Sizes of the transformer task.

    Held-out examples are few on purpose: with 1,024 of them the standard error of the loss (0.007)
    is below what the shrinkage of the 20 planted directions costs at the L1 weight that removes the
    last noise (0.017), and the rule stops before it.
    """

    ranks_per_layer: tuple[int, ...] = (1, 0, 2, 1, 4, 2)
    """Planted rank of query, key, value, attention output, and the two of the feed-forward part."""
    num_layers: int = 2
    """Layers."""
    hidden_size: int = 32
    """Width; the feed-forward part is twice as wide."""
    num_tokens: int = 8
    """Tokens of an example."""
    num_train: int = 256
    """Training examples."""
    num_held_out: int = 128
    """Held-out examples."""
    noise: float = 0.1
    """Standard deviation of the noise on every output; the outputs have variance 1."""
    size: float = 1.0
    """Every planted singular value; those of the base's weights go up to about 2."""


class ParallelLinears(nn.Module):
    """Linear layers side by side, each with its own input and its own output.

    Args:
        weights: One weight a layer, (d_out, d_in) each; the layers are `layers.0`, `layers.1`, ...
    """

    def __init__(self, weights: Sequence[Float[Tensor, "d_out d_in"]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights)
        with torch.no_grad():
            for layer, weight in zip(self.layers, weights, strict=True):
                layer.get_parameter("weight").copy_(weight)

    @override
    def forward(self, inputs: Float[Tensor, "n m d_in"]) -> Float[Tensor, "n m d_out"]:
        outputs = [layer(x) for layer, x in zip(self.layers, inputs.unbind(1), strict=True)]
        return torch.stack(outputs, dim=1)


class HiddenStates(nn.Module):
    """A BERT encoder as a function of its input embeddings.

    Args:
        config: Architecture, without dropout.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.eval()

    @override
    def forward(self, inputs: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        return self.bert(inputs_embeds=inputs).last_hidden_state


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of a regression: the first axis runs over them.

    Attributes:
        inputs: Inputs of the model, standard normal.
        targets: Noisy outputs of the teacher.
    """

    inputs: Float[Tensor, "n *axes d_in"]
    targets: Float[Tensor, "n *axes d_out"]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The task, drawn. The teacher is `base` with the updates added.

    Attributes:
        base: The student before it is adapted.
        updates: Planted update of every matrix to adapt, by the name of its layer.
        ranks: Its rank, in the same order.
        train: Training examples.
        held_out: Held-out examples, with noise of their own.
    """

    base: nn.Module
    updates: dict[str, Float[Tensor, "_ _"]]
    ranks: tuple[int, ...]
    train: Examples
    held_out: Examples


def plant(config: PlantedConfig, seed: int) -> Planted:
    """Return the identifiable task that `seed` draws.

    The singular values of an update lie evenly from `config.smallest` to `config.largest` noise
    levels (`smallest` alone for rank 1), its singular vectors are uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    base = ParallelLinears(
        [
            torch.randn(config.d_out, config.d_in, generator=generator) / config.d_in**0.5
            for _ in config.ranks
        ]
    )
    updates = {
        f"layers.{index}": draw_update(
            (config.d_out, config.d_in),
            torch.linspace(config.smallest, config.largest, rank) * config.noise_level,
            generator=generator,
        )
        for index, rank in enumerate(config.ranks)
    }
    teacher = _plus(base, updates)
    sizes = (len(updates), config.d_in)
    return Planted(
        base=base,
        updates=updates,
        ranks=config.ranks,
        train=_draw(teacher, (config.num_train, *sizes), config.noise, generator),
        held_out=_draw(teacher, (config.num_held_out, *sizes), config.noise, generator),
    )


def plant_transformer(config: PlantedTransformerConfig, seed: int) -> Planted:
    """Return the transformer task that `seed` draws: regression on the last hidden states.

    Ranks are not identifiable matrix by matrix: query and key, and value and output, enter as
    products, so an update can move from one to the other. Score the total.
    """
    architecture = BertConfig(
        vocab_size=1,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=2,
        intermediate_size=2 * config.hidden_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Weights that keep the size of their input; with BERT's 0.02 attention would be uniform
        # and queries and keys without any effect.
        initializer_range=config.hidden_size**-0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = HiddenStates(architecture)
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, module in base.named_modules() if isinstance(module, nn.Linear)]
    ranks = config.ranks_per_layer * config.num_layers
    updates = {
        name: draw_update(
            tuple(base.get_submodule(name).get_parameter("weight").shape),
            torch.full((rank,), config.size),
            generator=generator,
        )
        for name, rank in zip(names, ranks, strict=True)
    }
    teacher = _plus(base, updates)
    sizes = (config.num_tokens, config.hidden_size)
    return Planted(
        base=base,
        updates=updates,
        ranks=ranks,
        train=_draw(teacher, (config.num_train, *sizes), config.noise, generator),
        held_out=_draw(teacher, (config.num_held_out, *sizes), config.noise, generator),
    )


def draw_update(
    shape: tuple[int, ...], values: Float[Tensor, " rank"], *, generator: torch.Generator
) -> Float[Tensor, "_ _"]:
    """Return a matrix with the singular values `values` and uniform singular vectors.

    Args:
        shape: (d_out, d_in).
        values: Positive; none gives a matrix of zeros.
        generator: Source of the singular vectors.
    """
    d_out, d_in = shape
    left = torch.linalg.qr(torch.randn(d_out, len(values), generator=generator)).Q
    right = torch.linalg.qr(torch.randn(d_in, len(values), generator=generator)).Q
    return left @ torch.diag(values) @ right.mT


def example_losses(
    outputs: Float[Tensor, "n *axes d_out"], targets: Float[Tensor, "n *axes d_out"]
) -> Float[Tensor, " n"]:
    """Return the squared error of every example, summed over all its outputs."""
    return (outputs - targets).square().flatten(1).sum(dim=1)


def compress(examples: Examples) -> Examples:
    """Return `d_in` examples of `ParallelLinears` with the mean loss of `examples` less a constant.

    With `X = QR`, `|X W' - Y|^2 = |R W' - Q'Y|^2 + |Y - QQ'Y|^2`, and the last term does not depend
    on the model. So training on the result is full-batch training, at the cost of `d_in` examples.
    """
    q, r = torch.linalg.qr(examples.inputs.double().transpose(0, 1))
    # The mean is taken over d_in rows, not over all examples.
    scale = math.sqrt(r.shape[-1] / examples.inputs.shape[0])
    targets = q.mT @ examples.targets.double().transpose(0, 1)
    dtype = examples.inputs.dtype
    return Examples(
        inputs=(scale * r).transpose(0, 1).to(dtype),
        targets=(scale * targets).transpose(0, 1).to(dtype),
    )


def _plus(base: nn.Module, updates: dict[str, Tensor]) -> nn.Module:
    teacher = copy.deepcopy(base)
    with torch.no_grad():
        for name, update in updates.items():
            teacher.get_submodule(name).get_parameter("weight").add_(update)
    return teacher


@torch.no_grad()
def _draw(
    teacher: nn.Module, shape: tuple[int, ...], noise: float, generator: torch.Generator
) -> Examples:
    inputs = torch.randn(shape, generator=generator)
    outputs = teacher(inputs)
    drawn = torch.randn(outputs.shape, generator=generator)
    return Examples(inputs=inputs, targets=outputs + noise * drawn)


def select_one_standard_error(
    losses: Sequence[float], standard_errors: Sequence[float], num_ranks: Sequence[int]
) -> int:
    """Return the index of the sparsest point within one standard error of the best loss.

    `argmin num_ranks` over the points with `loss <= loss* + standard_error*`, where * is the point
    of the smallest loss; of equally sparse ones the one with the smallest loss. It never sees the
    truth. A point with a loss that is not finite is never chosen.

    Args:
        losses: Mean held-out loss of every point.
        standard_errors: Standard error of every mean.
        num_ranks: Ranks that every point keeps.

    Raises:
        ValueError: If no loss is finite.
    """
    assert len(losses) == len(standard_errors) == len(num_ranks)
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    if not finite:
        raise ValueError(f"`losses` must hold a finite number, got {list(losses)}.")
    best = min(finite, key=lambda index: losses[index])
    limit = losses[best] + standard_errors[best]
    within = [index for index in finite if losses[index] <= limit]
    return min(within, key=lambda index: (num_ranks[index], losses[index]))


def numerical_rank(update: Float[Tensor, "_ _"], threshold: float) -> int:
    """Return the number of singular values of `update` above `threshold`.

    Unlike a count of gates it does not count a direction twice.

    Args:
        update: `s * B diag(g) A`.
        threshold: In units of the update's singular values. Must be >= 0.

    Raises:
        ValueError: If `threshold` is negative or NaN.
    """
    if not threshold >= 0:
        raise ValueError(f"`threshold` must be >= 0, got {threshold}.")
    return int((torch.linalg.svdvals(update.double()) > threshold).sum())


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well ranks were found.

    Attributes:
        exact: Share of matrices with the planted rank.
        within_one: Share of matrices at most one off.
        surplus: Ranks found beyond the planted ones, summed over the matrices that have too many.
        deficit: Planted ranks not found, summed over the matrices that have too few.
    """

    exact: float
    within_one: float
    surplus: int
    deficit: int


def score(found: Sequence[int], planted: Sequence[int]) -> Score:
    """Compare the ranks found with the planted ones, matrix by matrix."""
    errors = [f - p for f, p in zip(found, planted, strict=True)]
    return Score(
        exact=sum(error == 0 for error in errors) / len(errors),
        within_one=sum(abs(error) <= 1 for error in errors) / len(errors),
        surplus=sum(max(error, 0) for error in errors),
        deficit=sum(max(-error, 0) for error in errors),
    )
