"""What the runs of a study will take, before one of them has shown it."""

from collections.abc import Mapping
from dataclasses import dataclass

from sorakit.config import RunConfig
from sorakit.studies.look import Look
from sorakit.sweep.cost import CostModel, Times
from sorakit.sweep.display import estimate
from sorakit.sweep.plan import Plan
from sorakit.training.time_left import describe_seconds, evaluation_seconds

DENSE_PASSES = 21
"""Passes until a dense stage has converged: median of `experiments/results/small_curves`."""
COMPRESS_PASSES = 1.2
"""Passes in which xi takes ranks away to the next target: mean there."""
REFIT_PASSES = 15
"""Passes until a refit has converged: median of the runs' means there."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes over the training data.

    Attributes:
        dense: Of the dense stage.
        stage: Of a sparsifying stage, refit included.
    """

    dense: int
    stage: float


def usual_passes(config: RunConfig) -> Passes:
    """Return the passes that a run usually takes, within the guards of its options."""
    refit = min(REFIT_PASSES, config.refit.max_epochs) if config.stage.refit != "none" else 0
    compress = config.stage.epochs
    if config.xi.spacing == "target":
        compress = min(max(COMPRESS_PASSES, compress), config.stage.max_epochs)
    return Passes(dense=min(DENSE_PASSES, config.dense.max_epochs), stage=float(compress + refit))


def most_passes(config: RunConfig) -> Passes:
    """Return the passes after which the guards end the stages of a run."""
    refit = config.refit.max_epochs if config.stage.refit != "none" else 0
    compress = config.stage.max_epochs if config.xi.spacing == "target" else config.stage.epochs
    return Passes(dense=config.dense.max_epochs, stage=float(compress + refit))


def times_of(config: RunConfig, look: Look, passes: Passes) -> Times:
    """Return the seconds of a run that takes so many passes, evaluations included."""
    a_pass = look.steps_per_epoch * look.seconds_a_step
    evaluation = evaluation_seconds(look.evaluated_batches, look.seconds_a_step)
    kkt = config.stage.kkt_examples
    examples = config.task.memorization_examples if kkt < 0 else kkt
    residuals = examples / config.optim.batch_size * look.seconds_a_step
    evaluations = 1 if config.stage.refit == "none" else 2
    later = 0.0
    if config.method.adapter.has_gates:
        later = passes.stage * a_pass + evaluations * evaluation + residuals
    return Times(dense=passes.dense * a_pass + evaluation, later=config.xi.num_stages * later)


def expect(costs: CostModel, plan: Plan, looks: Mapping[int, Look], *, at_most: bool) -> None:
    """Tell a cost model what the runs of a plan are expected to take.

    Args:
        costs: The cost model.
        plan: The runs.
        looks: Index of a job -> what was seen of its data.
        at_most: Whether the guards end every stage.
    """
    for index, look in looks.items():
        config = plan.jobs[index].config
        passes = most_passes(config) if at_most else usual_passes(config)
        costs.expect(config, times_of(config, look, passes))


def describe(plan: Plan, looks: Mapping[int, Look], *, costs: CostModel, workers: int) -> str:
    """Return what the runs of a study will take, and how that was found out."""
    usual = estimate(plan, costs).work()
    guards = CostModel()
    expect(guards, plan, looks, at_most=True)
    most = estimate(plan, guards).work()
    if usual is None or most is None:
        return "Nothing to do."
    steps = sorted({round(look.seconds_a_step, 3) for look in looks.values()})
    took = " to ".join(f"{seconds:g}" for seconds in dict.fromkeys((steps[0], steps[-1])))
    first = f"About {describe_seconds(usual)} of computing"
    if workers > 1:
        first += f", {describe_seconds(usual / workers)} with {workers} workers"
    if costs.num_runs:
        return f"{first}, going by {costs.num_runs} finished runs and by timed steps for the rest."
    config = plan.jobs[0].config
    passes = usual_passes(config)
    return (
        f"{first}: a timed training step took {took} s, and it is taken that the dense stage "
        f"converges in {passes.dense:g} passes and each of {config.xi.num_stages} stages in "
        f"{passes.stage:g}, as in small embedded tasks (large data need fewer). At most "
        f"{describe_seconds(most / workers)}, if max_epochs ends every stage."
    )
