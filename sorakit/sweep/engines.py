"""Where the runs of a sweep are computed: processes of this machine."""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from sorakit.records import config_to_dict
from sorakit.sweep.plan import Job
from sorakit.sweep.worker import Request, start_worker

LOST = -1
"""Exit code of a run whose process is gone without one."""
_POLL_SECONDS = 0.1
_STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run whose process has ended.

    Attributes:
        job: The run.
        code: Exit code; negative if a signal killed the process, or it was lost.
        error: What is known beside the log.
    """

    job: Job
    code: int
    error: str | None = None


class Engine(ABC):
    """What runs jobs.

    Attributes:
        most_deaths: Times that the process of a run may die without getting further, before it has
            failed.
    """

    most_deaths: int

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Runs at a time."""

    @abstractmethod
    def start(self, job: Job, request: Request) -> None:
        """Start a run."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ended]:
        """Return the runs that have ended, at the latest after `seconds`."""

    @abstractmethod
    def stop(self) -> None:
        """Stop every run, so that it can be resumed, and wait for that."""


@final
class LocalEngine(Engine):
    """Processes of this machine, one a run.

    Several GPUs in `CUDA_VISIBLE_DEVICES` are dealt out to the workers in turn, to each as many as
    the devices of its run.

    Args:
        workers: Runs at a time.
    """

    most_deaths = 2

    def __init__(self, *, workers: int) -> None:
        self._running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
        self._workers = workers
        self._gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]

    @property
    @override
    def num_slots(self) -> int:
        """Runs at a time."""
        return self._workers

    @override
    def start(self, job: Job, request: Request) -> None:
        """Start a run in a process of its own."""
        slot = min(set(range(self._workers)) - set(self._running))
        env = thread_environment(job)
        if len(self._gpus) > 1:
            first, count = slot * job.config.trainer.devices, job.config.trainer.devices
            gpus = [self._gpus[i % len(self._gpus)] for i in range(first, first + count)]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self._running[slot] = (job, start_worker(request, env=env))

    @override
    def wait(self, seconds: float) -> list[Ended]:
        """Return the runs that have ended, at the latest after `seconds`."""
        last = time.monotonic() + seconds
        while True:
            ended: list[Ended] = []
            for slot, (job, process) in list(self._running.items()):
                if process.poll() is not None:
                    ended.append(Ended(job=job, code=process.returncode))
                    _close(process)
                    del self._running[slot]
            if ended or time.monotonic() >= last:
                return ended
            time.sleep(_POLL_SECONDS)

    @override
    def stop(self) -> None:
        """Stop every run, so that it can be resumed; kill what does not stop within a minute."""
        stop_processes([process for _, process in self._running.values()])
        self._running.clear()


def request_of(job: Job, *, dense_store: str) -> Request:
    """Return what the worker of a job needs to know."""
    return Request(config=config_to_dict(job.config), dense_store=dense_store, folder=os.getcwd())  # noqa: PTH109  # a string


def thread_environment(job: Job) -> dict[str, str]:
    """Return the environment that holds every library to the threads of the run, if it names any.

    The libraries read it when they are loaded. Records are equal only at equal numbers.
    """
    threads = job.config.trainer.num_threads
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads)}


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop workers as after Ctrl-C; kill those that do not stop within a minute."""
    try:
        for process in processes:
            _close(process)
        last = time.monotonic() + _STOP_SECONDS
        for process in processes:
            process.wait(timeout=max(0.0, last - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):  # or the user has no patience
        for process in processes:
            process.kill()
            process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
