"""`sorakit run` with its CPU time split by what it is spent on; for checkouts before this one too.

    python experiments/benchmarks/timed_run.py OUT.json [--dense-only] OPTIONS OF sorakit run

writes CPU seconds of the whole process into OUT.json, and of its parts: training, evaluation, kkt,
records (records, exports, checkpoints, lines of steps) and start (imports, data, model).
`--dense-only` ends the process when the dense stage is recorded. Imports nothing of `experiments`,
so that `PYTHONPATH` chooses the checkout.
"""

import functools
import importlib
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = {
    "training": [("lightning.pytorch", "Trainer", "fit")],
    "evaluation": [("lightning.pytorch.loops.evaluation_loop", "_EvaluationLoop", "run")],
    "kkt": [("sorakit.training.stationarity", "Stationarity", "__call__")],
    "records": [
        ("sorakit.training.recorder", "StageRecorder", "__call__"),
        ("sorakit.training.recorder", "StageRecorder", "ranks_chosen"),
        ("sorakit.training.step_recorder", "StepRecorder", "on_train_batch_end"),
        ("sorakit.training.checkpoint", "ResumePoint", "on_train_epoch_end"),
        ("sorakit.training.checkpoint", "ResumePoint", "on_train_epoch_start"),
        ("sorakit.training.checkpoint", "ResumePoint", "on_train_batch_end"),
    ],
}
"""What is spent in which functions, those that they call and that are named here left out."""


class Clock:
    """CPU time of named functions, each without the named ones that it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running = ["start"]
        self._since = 0.0

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for `part`."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._running.pop()

        return timed

    def stop(self) -> dict[str, float]:
        """Return the seconds of every part so far."""
        self._turn()
        return dict(self.seconds)

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def main() -> None:
    """Run, and write the times."""
    out, options = Path(sys.argv[1]).resolve(), sys.argv[2:]
    ends_dense = "--dense-only" in options
    clock = Clock()
    for part, functions in PARTS.items():
        for module, owner, name in functions:
            kind = getattr(importlib.import_module(module), owner)
            if name in vars(kind):
                setattr(kind, name, clock.wrap(part, vars(kind)[name]))

    def write() -> None:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        whole = sum(u.ru_utime + u.ru_stime for u in used)
        out.write_text(json.dumps({"whole": whole, **clock.stop()}) + "\n", "utf-8")

    if ends_dense:
        options.remove("--dense-only")
        kind: Any = importlib.import_module("sorakit.training.recorder").StageRecorder
        record = kind.__call__

        def record_and_end(*args: Any) -> None:
            record(*args)
            write()
            os._exit(0)  # no later stage is wanted

        kind.__call__ = record_and_end
    try:
        importlib.import_module("sorakit.cli").main(["run", *options])
    except SystemExit as end:
        if end.code:
            raise
    write()


if __name__ == "__main__":
    main()
