"""What a study asks for, and that its folder holds no other."""

from typing import Any

import pytest
import yaml

from sorakit.options import split_options
from sorakit.studies.specification import Request, parse_ranks, specification
from sorakit.sweep.grid import load_specification

WHOLE = ["floor", "random_mask", "hard_mask_retrain", {"lora": [1, 2, 4, 8]}]


def spec_of(**choices: Any):
    return specification(Request(**{"data": ["pydoc_order"], **choices}))


def refused(pattern: str, **choices: Any) -> None:
    with pytest.raises(ValueError, match=pattern):
        spec_of(**choices)


def test_study_is_five_seeds_with_floor_controls_and_the_ranks_of_lora():
    spec = spec_of()
    assert spec.content == {
        "backbone.name": "embedded",
        "task.name": "pydoc_order",
        "grid": {"seed": [0, 1, 2, 3, 4]},
        "controls": WHOLE,
    }
    assert (str(spec.folder), spec.left_out) == ("studies/pydoc_order", "")
    sweep = load_specification(spec.content, name="study")
    assert [point.config.seed for point in sweep.points] == [0, 1, 2, 3, 4]
    assert [rule.name for rule in sweep.controls] == [*WHOLE[:3], *["lora"] * 4]


def test_quick_study_says_what_it_leaves_out():
    spec = spec_of(quick=True)
    assert spec.content["controls"] == ["floor", "random_mask", {"lora": [1, 8]}]
    assert str(spec.folder) == "studies/pydoc_order-quick"
    assert spec.left_out.startswith(
        "Quick: it leaves out 4 of 5 seeds; training examples beyond 500; 7 of 12 stages; "
        "hard_mask_retrain; LoRA of rank 2, 4. One seed has no interval over seeds."
    )


def test_what_is_given_goes_before_what_quick_chooses():
    options = {"task.train_examples": 90, "method.r": 2}
    spec = spec_of(quick=True, seeds=3, options=options, lora_ranks=[1, 2], controls="hold_dense")
    assert spec.content["task.train_examples"] == 90
    assert spec.content["grid"] == {"seed": [0, 1, 2]}
    assert spec.content["controls"] == ["hold_dense", {"lora": [1, 2]}]
    assert "of 5 stages" not in spec.left_out


def test_ranks_of_lora_end_at_the_rank_of_the_path():
    assert spec_of(options={"method.r": 6}).content["controls"][-1] == {"lora": [1, 2, 4, 6]}


def test_no_controls_and_no_lora_may_be_asked_for():
    spec = spec_of(controls="none", lora_ranks=parse_ranks("none"))
    assert spec.content["controls"] == []


def test_lora_among_the_controls_has_its_own_ranks():
    spec = spec_of(controls="floor, lora: [3]")
    assert spec.content["controls"] == ["floor", {"lora": 3}]
    refused(r"^`--lora-ranks` must not be", controls="lora: [3]", lora_ranks=[1])


def test_options_of_controls_are_kept():
    controls = spec_of(controls="floor, random_mask: {stage.refit: none}").content["controls"]
    assert controls[1] == {"random_mask": {"stage.refit": "none"}}


def test_several_datasets_are_points_of_one_study():
    spec = spec_of(data=["pydoc_order", "pydoc_pair"], seeds=1)
    assert spec.content["points"] == [{"task.name": "pydoc_order"}, {"task.name": "pydoc_pair"}]
    assert str(spec.folder) == "studies/pydoc_order+pydoc_pair"
    sweep = load_specification(spec.content, name="study")
    assert [point.config.task.name for point in sweep.points] == ["pydoc_order", "pydoc_pair"]


def test_backbone_is_part_of_the_name_of_the_folder():
    spec = spec_of(data=["mrpc"], backbone="microsoft/deberta-v3-base")
    assert str(spec.folder) == "studies/mrpc-deberta-v3-base"


@pytest.mark.parametrize(
    ("option", "owner"),
    [
        ("task.name", "--data"),
        ("task.label", "--data NAME=PLACE"),
        ("seed", "--seeds"),
        ("out_dir", "--out"),
        ("backbone.name", "--backbone"),
        ("stage.control", "--controls"),
    ],
)
def test_option_that_the_study_sets_is_refused(option, owner):
    message = rf"^`--{option}` must be left to `{owner}` in a study, got 'x'\.$"
    refused(message, options={option: "x"})


def test_wrong_requests_are_refused():
    refused(r"^`--seeds` must be >= 1, got 0\.$", seeds=0)
    refused(r"^`--lora-ranks` must be >= 1, got 0\.$", lora_ranks=[0])
    refused(r"^`optim\.lr` must be a number, got 'fast'\.$", options={"optim.lr": "fast"})
    refused(r"^`optim\.rate` must be an option of `sorakit run`", options={"optim.rate": 1})
    with pytest.raises(ValueError, match=r"^`--lora-ranks` must be ranks such as 1,2,4, or none"):
        parse_ranks("1,x")


def test_folder_of_another_study_is_refused_by_what_differs(tmp_path):
    asked = {"out": str(tmp_path / "study"), "options": {"xi.num_stages": 4}}
    spec = spec_of(**asked)
    spec.write()
    spec_of(**asked).require_same()
    changes: dict[str, dict[str, Any]] = {
        "--seeds": {"seeds": 3},
        "--backbone": {"backbone": "other"},
        "--data": {"data": ["pydoc_pair"]},
        "--controls": {"controls": "floor"},
        "xi.num_stages": {"options": {"xi.num_stages": 5}},
        "optim.lr": {"options": {"xi.num_stages": 4, "optim.lr": 0.1}},
    }
    for name, change in changes.items():
        with pytest.raises(ValueError, match=rf"^`{name}` must stay .* Give another `--out`\.$"):
            spec_of(**{**asked, **change}).require_same()
    message = r"must stay its default in .*, which holds that study, got 0\.1\. Give"
    with pytest.raises(ValueError, match=message):
        spec_of(**{**asked, **changes["optim.lr"]}).require_same()


def test_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"^`--out` must be a new folder or that of a study"):
        spec_of(out=str(tmp_path)).require_same()
    with pytest.raises(ValueError, match=r"^`--out` must be a folder, got"):
        spec_of(out=str(tmp_path / "notes.txt")).require_same()


def test_written_file_is_the_sweep_of_the_study(tmp_path):
    spec = spec_of(out=str(tmp_path / "study"))
    spec.write()
    assert yaml.safe_load((tmp_path / "study" / "study.yaml").read_text()) == spec.content


def test_options_of_a_run_are_taken_out_of_the_words():
    names = ["--method.target_modules", "[query,value]"]
    rest, options = split_options(["--data", "x.csv", "--optim.lr=1e-3", *names, "--quick"])
    assert rest == ["--data", "x.csv", "--quick"]
    assert options == {"optim.lr": 1e-3, "method.target_modules": ["query", "value"]}
    with pytest.raises(ValueError, match=r"^`--optim\.lr` must have a value, got none\.$"):
        split_options(["--optim.lr"])
    with pytest.raises(ValueError, match=r"optim\.lr"):
        split_options(["--optim.lr=fast"])


def test_ranks_of_stages_are_a_control_of_a_study():
    spec = spec_of(controls="floor, lora_pattern: [2, 5]", lora_ranks=[1])
    patterns = [{"lora_pattern": 2}, {"lora_pattern": 5}]
    assert spec.content["controls"] == ["floor", *patterns, {"lora": [1]}]
    rules = load_specification(spec.content, name="study").controls
    assert [rule.stage for rule in rules] == [None, 2, 5, None]
