from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sorakit.config import MethodConfig, RunConfig, TaskConfig, XiConfig
from sorakit.records import (
    STAGES_FILE,
    RunWriter,
    config_to_dict,
    load_run,
    run_id,
)
from tests.support.fake_runs import fake_config, fake_examples, fake_stage, write_run

NOT_HASHED = {
    "task.label",  # a name for the reader
    "out_dir",
    "trainer.num_threads",
    "trainer.strategy",  # auto is ddp
    "tracking.wandb",
    "tracking.project",
    "tracking.entity",
    "tracking.log_adapters",
}

# Other valid values, given the defaults of all other fields, where `other_value` finds none.
OTHER_VALUES: dict[str, Any] = {
    "xi.budget": XiConfig(spacing="target", budget=500),
    "method.target_modules": ["query"],
    "task.metric": "f1",
    "task.train_examples": 100,
    "method.exclude_modules": ["query"],
    "task.image_size": 64,
    "task.objective": "causal_lm",
    "task.subset_seed": TaskConfig(subset_fraction=0.5, subset_seed=1),
    "method.rank_pattern": MethodConfig(
        name="lora_pattern", rank_pattern={"encoder.layer.0.attention.self.query": 2}
    ),
    "stage.control": "hold_dense",
    "xi.ratio": 1.5,
    "xi.spacing": XiConfig(spacing="linear", end=0.1),
    "xi.end": XiConfig(spacing="geometric", end=0.5),
    "xi.levels": XiConfig(spacing="list", levels=[0.1]),
    "out_dir": "elsewhere",
    "trainer.num_threads": 2,
    "tracking.wandb": "off",
}


@pytest.fixture(scope="module")
def empty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("empty"), num_stages=0)


@pytest.fixture(scope="module")
def three_stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run folder and the content of its stages file."""
    path = write_run(tmp_path_factory.mktemp("three"), num_stages=3, num_layers=1)
    return path, (path / STAGES_FILE).read_bytes()


def field_names() -> list[str]:
    config = RunConfig()
    names: list[str] = []
    for section in fields(config):
        value = getattr(config, section.name)
        inner = [f.name for f in fields(value)] if is_dataclass(value) else []
        names += [f"{section.name}.{name}" for name in inner] or [section.name]
    return names


def base_of(name: str) -> RunConfig:
    """Return the default configuration, with levels where the other value needs them."""
    needs_levels = name in ("stage.until", "stage.control")
    return RunConfig(xi=XiConfig(spacing="geometric")) if needs_levels else RunConfig()


def changed(name: str) -> RunConfig:
    """Return the default configuration with another value of the field `name`."""
    config = base_of(name)
    section, _, key = name.partition(".")
    owner = getattr(config, section) if key else config
    field = key or section
    hint = get_type_hints(type(owner))[field]
    new = OTHER_VALUES[name] if name in OTHER_VALUES else other_value(getattr(owner, field), hint)
    if is_dataclass(new) or not key:
        return replace(config, **{section: new})
    return replace(config, **{section: replace(getattr(config, section), **{key: new})})


def other_value(old: object, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return next(value for value in get_args(hint) if value != old)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return old + 1
    if isinstance(old, float):
        return old / 2 if old else 0.5
    if old is None and int in get_args(hint):
        return 1
    if old is None and str not in get_args(hint):
        return 0.5
    return "another" if old is None else f"{old}_2"


@pytest.mark.parametrize("name", [name for name in field_names() if name not in NOT_HASHED])
def test_run_id_changes_with_every_field(name: str) -> None:
    assert run_id(changed(name)) != run_id(base_of(name))


@pytest.mark.parametrize("name", sorted(NOT_HASHED))
def test_run_id_ignores_what_cannot_change_the_experiment(name: str) -> None:
    assert run_id(changed(name)) == run_id(RunConfig())


@pytest.mark.parametrize("name", field_names())
def test_every_field_of_a_configuration_survives_the_run_folder(name: str, tmp_path: Path) -> None:
    config = changed(name)
    writer = RunWriter(tmp_path)
    writer.write_config(config)
    writer.write_meta({"schema_version": 1})
    assert load_run(tmp_path).config == config_to_dict(config)


@settings(max_examples=30)  # every example writes and syncs four files
@given(
    xi=st.floats(min_value=5e-324, allow_infinity=False),
    score=st.floats(allow_nan=False, allow_infinity=False),
    count=st.integers(min_value=0, max_value=2**53),
    residual=st.none() | st.floats(min_value=0, allow_infinity=False),
    metric=st.text(),
)
def test_every_value_of_a_stage_is_read_back_exactly(
    empty_run: Path, xi: float, score: float, count: int, residual: float | None, metric: str
) -> None:
    record = fake_stage(
        fake_config(),
        0,
        [],
        xi=xi,
        memorization=score,
        num_nonzero_params=count,
        metric=metric,
    )
    writer = RunWriter(empty_run)
    writer.keep_stages(0)
    measures = {"kkt_residual": residual}
    writer.append_stage(record, ranks=[], examples=fake_examples(0), timing={}, measures=measures)
    row = load_run(empty_run).stages.iloc[0]
    assert (row["xi"], row["memorization"], row["num_nonzero_params"], row["metric"]) == (
        xi,
        score,
        count,
        metric,
    )
    assert row["kkt_residual"] == residual or residual is None is row["kkt_residual"]


@given(data=st.data())
def test_a_file_cut_anywhere_holds_the_stages_whose_lines_are_whole(
    three_stages: tuple[Path, bytes], data: st.DataObject
) -> None:
    path, content = three_stages
    cut = data.draw(st.integers(0, len(content)))
    (path / STAGES_FILE).write_bytes(content[:cut])
    stages = load_run(path).stages
    assert stages["stage"].tolist() == list(range(content[:cut].count(b"\n")))
