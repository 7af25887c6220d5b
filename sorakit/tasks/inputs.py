"""Which files, or versions, the data of a task come from; nothing is read."""

from pathlib import Path

from sorakit.config import TaskConfig
from sorakit.records.inputs import Input
from sorakit.tasks import GLUE_NAMES, PYDOC_NAMES

_GLUE_SUFFIXES = (".parquet", ".tsv", ".txt")


def task_inputs(config: TaskConfig) -> dict[str, Input]:
    """Return the inputs of a task by name; a file that is not there is left out.

    pydoc: the packages whose docstrings are read, Python among them. GLUE: every data file of its
    folder, or the revision of the Hub's dataset that the local cache holds. hub: that revision, or
    every file of the folder. files: one or two files.

    Raises:
        ValueError: If `task.data_dir` does not hold the task.
    """
    if config.name in PYDOC_NAMES:
        from sorakit.tasks.pydoc_corpus import installed_versions

        return dict(installed_versions())
    if config.name in GLUE_NAMES:
        from sorakit.tasks.glue import HUB_ID, find_task_folder

        if config.data_dir is None:
            return _revision_of(HUB_ID)
        folder = find_task_folder(Path(config.data_dir).expanduser(), name=config.name)
        files = sorted(file for file in folder.iterdir() if file.suffix in _GLUE_SUFFIXES)
        return {file.name: file for file in files}
    if config.name == "hub":
        if config.dataset is not None:
            return _revision_of(config.dataset)
        root = Path(config.data_dir or ".")
        files = sorted(file for file in root.rglob("*") if file.is_file())
        return {str(file.relative_to(root)): file for file in files}
    folder = Path(config.data_dir or ".").expanduser()
    names = [name for name in (config.train_file, config.validation_file) if name is not None]
    found = {name: folder / Path(name).expanduser() for name in names}
    return {name: file for name, file in found.items() if file.is_file()}


def hub_revision(repository: str, *, kind: str) -> str | None:
    """Return the commit of the Hub that the local cache holds as `main`, or None without one.

    Args:
        repository: Hub id.
        kind: model or dataset.
    """
    from huggingface_hub import constants

    folder = f"{kind}s--{repository.replace('/', '--')}"
    file = Path(constants.HF_HUB_CACHE) / folder / "refs" / "main"
    return file.read_text("utf-8").strip() if file.is_file() else None


def _revision_of(dataset: str) -> dict[str, Input]:
    revision = hub_revision(dataset, kind="dataset")
    return {} if revision is None else {dataset: revision}
