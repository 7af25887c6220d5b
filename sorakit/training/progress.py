"""What a person sees of a run: phase, xi, parameters left, the two scores, and the time left."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typing_extensions import override

from sorakit.adapters import Adapter
from sorakit.config import RunConfig
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT
from sorakit.schedule.convergence import MAX_EPOCHS
from sorakit.training.module import AdaptationModule
from sorakit.training.time_left import TimeLeft
from sorakit.training.xi_scheduler import StageEnd, XiScheduler

_LINE_SECONDS = 60.0
"""Between two lines that say how far a run is, where there is no terminal to show a bar."""

_FULL = 0.9
"""Share of its parameters below which a dense stage is far from full rank, as in `analysis`."""
_ABOVE = 0.01
"""Score by which a stage has to be above the dense one to be said so."""


class StageProgress(ProgressBar):
    """One moving line for the current segment and one printed line for every stage that ended.

    Where there is no terminal, as in the log of a sweep, a line a minute takes the place of the
    moving one.

    Args:
        scheduler: The run's schedule.
        config: Resolved configuration.
        adapter: What is trained.
        title: What is being run.
        notes: Lines below the title.
    """

    def __init__(
        self,
        scheduler: XiScheduler,
        *,
        config: RunConfig,
        adapter: Adapter,
        title: str,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._adapter = adapter
        self._config = config
        self._title = title
        self._clock: TimeLeft | None = None
        self._said = 0.0
        self._num_adapter_params = 0
        self._dense_scores: dict[str, float] = {}
        self._notes = notes
        self._console = Console(file=sys.stderr, highlight=False)
        self._progress: Progress | None = None
        self._bar: Any = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert isinstance(pl_module, AdaptationModule)
        # Before a refit takes dead ranks out of the model.
        self._num_adapter_params = self._adapter.count_all(pl_module.model)
        self._console.print(f"[bold]{self._title}[/bold]")
        has_stages = self._adapter.has_gates or self._adapter.has_stages
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by `fit`
        self._clock = TimeLeft.of(
            self._config,
            steps_per_epoch=data.steps_per_epoch,
            num_stages=self._scheduler.schedule.num_stages if has_stages else 0,
        )
        self._clock.begin(time.monotonic())
        self._said = time.monotonic()
        for note in (*self._notes, self._clock.plan):
            self._console.print(note, markup=False, soft_wrap=True)
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._bar = self._progress.add_task("", total=None, left="")
            self._progress.start()

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress is not None:
            self._progress.reset(
                self._bar,
                total=self.total_train_batches,
                description=self._describe(pl_module),
            )

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert self._clock is not None
        now = time.monotonic()
        self._clock.step(now)
        position = self._scheduler.schedule.position
        left = self._clock.remaining(position.stage, position.steps_in_stage)
        if self._progress is not None:
            self._progress.update(self._bar, advance=1, left="" if left is None else str(left))
        elif left is not None and now - self._said >= _LINE_SECONDS:
            self._said = now
            self._console.print(
                f"{self._describe(pl_module)}  step {position.steps_in_stage}  {left}",
                soft_wrap=True,
            )

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._progress is not None:
            self._progress.update(self._bar, description=f"{self._describe(pl_module)}  evaluating")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def stage_ended(self, _: pl.Trainer, module: pl.LightningModule, end: StageEnd) -> None:
        """Print the line of a stage; a listener of `XiScheduler`."""
        assert isinstance(module, AdaptationModule)
        if self._clock is not None:
            self._clock.stage_ended(end.stage, end.steps)
        phase = "dense" if end.stage == 0 else f"stage {end.stage:2d}"
        chosen = end.chosen
        ended = f"{end.epochs:.3g} epochs ({chosen.stopped_by}"
        if end.refit_stopped_by is not None:
            ended += f", refit {end.refit_epochs:.3g} {end.refit_stopped_by}"
        self._console.print(
            f"  {phase:8}  xi {chosen.xi:8.2e}  {self._count(module)}  {_scores(module)}  {ended})",
            soft_wrap=True,  # a line a stage, in a log file too
        )
        for doubt in self._doubts(module, end):
            self._console.print(f"            {doubt}", markup=False, soft_wrap=True)

    def _doubts(self, module: AdaptationModule, end: StageEnd) -> Iterator[str]:
        """Yield what a reader of the curve should know of this stage."""
        scores = {split: result.score for split, result in module.results.items()}
        if end.stage == 0:
            self._dense_scores = scores
            if end.chosen.stopped_by == MAX_EPOCHS:
                yield "The dense stage ended by dense.max_epochs and had not converged."
            left = self._adapter.count(module.model)
            if self._adapter.has_gates and left < _FULL * self._num_adapter_params:
                share = left / self._num_adapter_params
                yield f"The dense stage holds {share:.0%} of the full adapter only: lower xi.start."
        elif end.refit_stopped_by == MAX_EPOCHS:
            yield "The refit ended by refit.max_epochs and had not converged."
        dense = self._dense_scores.get(GENERALIZATION_SPLIT)
        if end.stage > 0 and dense is not None and scores[GENERALIZATION_SPLIT] > dense + _ABOVE:
            yield f"It generalizes better than the dense stage ({dense:.3f})."

    def _describe(self, module: pl.LightningModule) -> str:
        assert isinstance(module, AdaptationModule)
        scheduler = self._scheduler
        phase = "dense" if scheduler.stage == 0 else f"stage {scheduler.stage}"
        if scheduler.schedule.phase.name == "refit":
            phase += " refit"
        scores = f"  {_scores(module)}" if module.results else ""
        return f"  {phase}  xi {scheduler.schedule.level:.2e}  {self._count(module)}{scores}"

    def _count(self, module: AdaptationModule) -> str:
        left, full = self._adapter.count(module.model), self._num_adapter_params
        share = f" ({left / full:6.1%} of the full adapter)" if full else ""
        return f"{left:>9,} parameters{share}"


def _scores(module: AdaptationModule) -> str:
    results = module.results
    return (
        f"memorization {results[MEMORIZATION_SPLIT].score:.3f}  "
        f"generalization {results[GENERALIZATION_SPLIT].score:.3f}"
    )
