"""The dense stage as an artifact: trained once, where every run that shares it may start.

An artifact is the part of a run folder that stands at the end of the dense stage. It appears under
its name in one step, complete, and is never changed.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorakit.config import RunConfig
from sorakit.locks import FileLock, lock_holder
from sorakit.records import (
    ADAPTERS_DIR,
    CHECKPOINTS_DIR,
    DENSE_CHECKPOINT,
    EXAMPLES_FILE,
    RANKS_FILE,
    STAGES_FILE,
    STEPS_FILE,
    TIMINGS_FILE,
    RunWriter,
    dense_key,
    read_last_stage,
    read_meta,
    short_hash,
    stage_name,
)
from sorakit.training.checkpoint import checkpoint_name

MAKER_FILE = "dense.json"
"""Says which run made the artifact; not `meta.json`, or the artifact would look like a run."""
_TABLES = (EXAMPLES_FILE, RANKS_FILE, STAGES_FILE, TIMINGS_FILE, STEPS_FILE)
_POLL_SECONDS = 1.0


class SharedDenseStage:
    """The artifact of one dense stage, in a folder that runs share.

    Args:
        store: Folder of the artifacts; made when the first one is.
        name: `dense_name` of the runs that share this one.
    """

    def __init__(self, store: Path, *, name: str) -> None:
        self._path = store / name
        self._lock_path = store / f"{name}.lock"
        self._lock = FileLock(self._lock_path)

    @property
    def is_published(self) -> bool:
        """Whether there is an artifact to start from."""
        return (self._path / MAKER_FILE).is_file()

    @property
    def maker(self) -> str:
        """Run id of the run that trained it."""
        return str(json.loads((self._path / MAKER_FILE).read_text("utf-8"))["run_id"])

    def claim(self) -> bool:
        """Return whether the caller has to train it; waits while another process does.

        True: nobody else trains it until `publish` or `release`. False: it is published. When its
        maker dies, one of those who wait becomes the maker.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_announced = False
        while not self.is_published:
            if self._lock.acquire():
                if not self.is_published:  # or it was, between the two looks
                    return True
                self._lock.release()
                break
            if not is_announced:
                holder = lock_holder(self._lock_path) or "another process"
                sys.stderr.write(f"Waiting for the dense stage that {holder} trains.\n")
                is_announced = True
            time.sleep(_POLL_SECONDS)
        return False

    def publish(self, run: Path, *, run_id: str) -> None:
        """Make the dense stage of a run folder the artifact, unless there is one; release it.

        Args:
            run: Run folder with the checkpoint of its dense stage.
            run_id: Its run id.
        """
        if not self.is_published:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(
                f"{self._path.name}.{socket.gethostname()}.{os.getpid()}.part"
            )
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            copy_dense_stage(run, part)
            maker = json.dumps({"run_id": run_id, "host": socket.gethostname()}) + "\n"
            (part / MAKER_FILE).write_text(maker, encoding="utf-8")
            try:
                part.rename(self._path)
            except OSError:  # another maker was faster; its artifact is the same
                shutil.rmtree(part)
                if not self.is_published:
                    raise
        self.release()

    def release(self) -> None:
        """Let another process train it."""
        self._lock.release()

    def start_run(self, run: Path) -> None:
        """Put a run folder with `meta.json` at the end of the dense stage."""
        start_after_dense(self._path, run, maker=self.maker)


def dense_name(config: RunConfig, meta: Mapping[str, Any]) -> str:
    """Return the name of the artifact of a run's dense stage.

    Its first part names the configuration (`dense_key`); its second what else decides the bits:
    data, base weights, tokenizer, library versions, kind of hardware and number of threads.

    Args:
        config: Resolved configuration.
        meta: Content of `meta.json`.
    """
    hardware = meta["hardware"]
    environment = {
        "data": meta["data_fingerprint"],
        "backbone": meta["backbone_fingerprint"],
        "model": {name: stamp["sha256"] for name, stamp in meta["inputs"]["model"].items()},
        "versions": meta["versions"],
        "hardware": {key: hardware[key] for key in ("machine", "threads", "gpu")},
    }
    return f"{dense_key(config)}-{short_hash(environment)}"


def copy_dense_stage(source: Path, target: Path) -> None:
    """Copy the dense stage of a run folder or artifact, without a checkpoint to go on from.

    Its checkpoint is linked: checkpoints are replaced, never changed where they stand.
    """
    adapter = Path(ADAPTERS_DIR) / stage_name(0)
    shutil.rmtree(target / adapter, ignore_errors=True)
    shutil.copytree(source / adapter, target / adapter)
    for name in _TABLES:
        if name == STEPS_FILE and not (source / name).exists():
            continue  # a run of an older sorakit
        part = target / f"{name}.part"
        shutil.copyfile(source / name, part)
        part.replace(target / name)
    RunWriter(target).keep_stages(1)
    (target / CHECKPOINTS_DIR).mkdir(exist_ok=True)
    dense = Path(CHECKPOINTS_DIR) / DENSE_CHECKPOINT
    _link(source / dense, target / dense)


def start_after_dense(source: Path, run: Path, *, maker: str) -> None:
    """Put a run folder with `meta.json` at the end of the dense stage of `source`.

    The checkpoint to go on from comes last: before it stands, the run starts from nothing.

    Args:
        source: Run folder or artifact, with the checkpoint of its dense stage.
        run: Run folder.
        maker: Run id of the run that trained the dense stage; written as `dense_stage_of`.
    """
    RunWriter(run).write_meta({**read_meta(run), "dense_stage_of": maker})
    copy_dense_stage(source, run)
    dense = read_last_stage(run)
    assert dense is not None
    checkpoints = run / CHECKPOINTS_DIR
    _link(checkpoints / DENSE_CHECKPOINT, checkpoints / checkpoint_name(dense["optimizer_steps"]))


def _link(source: Path, target: Path) -> None:
    """Link a file that is never changed in place, or copy it where links do not work."""
    if target.exists() and target.samefile(source):
        return  # a rename onto the same file does nothing, not even remove the other name
    # A name that nothing opens for writing: a link left behind is still the other's file.
    part = target.with_name(f"{target.name}.link")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
    part.replace(target)
