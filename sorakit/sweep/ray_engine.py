"""Where the runs of a sweep are computed: Ray, on this machine or on a cluster.

Ray decides where a run goes; the run is the same process as under the local engine. The cluster is
that of `RAY_ADDRESS`; without it, Ray is started on this machine and stopped after the sweep. Run
folders must be on a file system that all nodes share.
"""

import importlib
import logging
import os
import time
from dataclasses import asdict
from typing import Any, final

from typing_extensions import override

from sorakit.sweep.engines import LOST, Ended, Engine, stop_processes, thread_environment
from sorakit.sweep.plan import Job
from sorakit.sweep.worker import Request, start_worker

_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0


@final
class RayEngine(Engine):
    """Ray Core tasks, one a run.

    Args:
        workers: Runs at a time; null is what the cluster, or this machine, has room for.
        cpus_per_run: CPUs that a run takes.
        gpus_per_run: GPUs that a run takes; 0.25 puts four runs on one.

    Raises:
        ValueError: If Ray is not installed.
    """

    most_deaths = 4  # nodes of a cluster may be taken away

    def __init__(self, *, workers: int | None, cpus_per_run: int, gpus_per_run: float) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own 15 would be that of the runs, too: anything else on the machine would stop them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            ray: Any = importlib.import_module("ray")  # an extra, which type checkers may not find
        except ImportError as error:
            raise ValueError(
                "`--engine` must be local unless Ray is installed, got ray. Install it with "
                "`pip install -c constraints.txt 'sorakit[ray]'`."
            ) from error
        self._ray = ray
        self._workers = workers
        self._need = {"CPU": float(cpus_per_run), "GPU": gpus_per_run}
        self._running: dict[Any, Job] = {}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if "RAY_ADDRESS" in os.environ:
            ray.init(**options)
        else:
            num_cpus = cpus_per_run * workers if workers else None  # all of this machine
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **options)
        # A lost task is started again by the sweep, which looks whether it got further.
        self._execute = ray.remote(_execute).options(
            num_cpus=cpus_per_run, num_gpus=gpus_per_run, max_retries=0
        )

    @property
    @override
    def num_slots(self) -> int:
        """Runs that the cluster has room for, which changes as nodes come and go."""
        have = self._ray.cluster_resources()
        room = min(int(have.get(name, 0) / need) for name, need in self._need.items() if need)
        return max(1, min(room, self._workers or room))

    @override
    def start(self, job: Job, request: Request) -> None:
        """Hand a run to Ray."""
        reference = self._execute.remote(asdict(request), thread_environment(job))
        self._running[reference] = job

    @override
    def wait(self, seconds: float) -> list[Ended]:
        """Return the runs that have ended, at the latest after `seconds`."""
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [self._end(reference) for reference in ready]

    @override
    def stop(self) -> None:
        """Stop every run, so that it can be resumed, and Ray if this sweep started it."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(
                list(self._running), num_returns=len(self._running), timeout=_STOP_SECONDS
            )
        self._running.clear()
        self._ray.shutdown()

    def _end(self, reference: Any) -> Ended:
        job = self._running.pop(reference)
        exceptions = self._ray.exceptions
        try:
            return Ended(job=job, code=self._ray.get(reference))
        except exceptions.RayTaskError as error:  # raised by `_execute`
            return Ended(job=job, code=1, error=str(error.cause))
        except exceptions.RayError:  # its worker or node is gone
            return Ended(job=job, code=LOST)


def _execute(request: dict[str, Any], env: dict[str, str]) -> int:
    """Run a request in a process of its own, on the node that Ray chose; return its exit code."""
    process = start_worker(Request(**request), env=env)
    try:
        while process.poll() is None:  # Ray cannot interrupt a call that blocks
            time.sleep(_POLL_SECONDS)
        return process.returncode
    finally:
        stop_processes([process])
