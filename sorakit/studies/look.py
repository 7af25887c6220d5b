"""Looks at the data and times a few steps of a run, in a process of its own.

`python -m sorakit.studies.look` reads the options of a run from stdin and writes a `Look` to
stdout, both JSON. The process that waits for the runs of a study so holds neither model nor GPU.
"""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Any

from sorakit.config import RunConfig
from sorakit.options import one_line, run_config
from sorakit.records import config_to_dict

_REFUSED = 2


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was understood of a run, and how fast it is.

    Attributes:
        text: A line a fact, as `sorakit check` prints them.
        warnings: What spoils its scores, a sentence each.
        seconds_a_step: Median of a few timed steps.
        steps_per_epoch: Optimizer steps in a pass over the training data.
        evaluated_batches: Batches of training size in one evaluation.
    """

    text: str
    warnings: list[str]
    seconds_a_step: float
    steps_per_epoch: int
    evaluated_batches: float


def look_at(config: RunConfig) -> Look:
    """Return what a run is made of, with the threads that it will have.

    Raises:
        ValueError: If the configuration cannot be run.
        RuntimeError: If the process failed otherwise.
    """
    threads = config.trainer.num_threads
    env = dict(os.environ) if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sorakit.studies.look"],
        input=json.dumps(config_to_dict(config)),
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    if done.returncode == _REFUSED:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return Look(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Look at the run on stdin; return the exit code."""
    from sorakit.training.check import preview  # torch takes seconds to import

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            seen = preview(run_config(json.load(sys.stdin)))
        except ValueError as error:
            sys.stderr.write(f"\n{one_line(str(error))}\n")
            return _REFUSED
    look = Look(
        text=seen.text,
        warnings=_sentences(caught),
        seconds_a_step=seen.seconds_a_step,
        steps_per_epoch=seen.steps_per_epoch,
        evaluated_batches=seen.evaluated_batches,
    )
    sys.stdout.write(json.dumps(asdict(look)) + "\n")
    return 0


def _sentences(caught: list[Any]) -> list[str]:
    """Return the warnings of sorakit, each once."""
    own = [w for w in caught if "sorakit" in str(w.filename) and w.category is UserWarning]
    return list(dict.fromkeys(one_line(str(warning.message)) for warning in own))


if __name__ == "__main__":
    sys.exit(main())
