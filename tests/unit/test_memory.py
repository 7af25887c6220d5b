"""Measures of memorization: hand-computed cases, and the limits that each must keep."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from analysis.cli import main
from analysis.load import FLOOR, NULL_FLOOR, PATH, load_runs
from analysis.memory.bits import bits_table, code_length, example_labels
from analysis.memory.counterfactual import counterfactual_memorization, influence, influence_matrix
from analysis.memory.examples import example_table, pool_of
from analysis.memory.forgetting import (
    KEPT,
    LOST,
    NEVER,
    data_map,
    exemplars,
    forgetting_events,
    lost_examples,
    mean_lost,
    seed_agreement,
    spectrum,
)
from analysis.memory.membership import (
    LIRA,
    LOSS,
    label_confidence,
    likelihood_ratios,
    membership_table,
)
from analysis.memory.noise import (
    CLEAN,
    FITTED,
    RETURNED,
    VALIDATION,
    noise_curves,
    noise_forgetting,
)
from analysis.memory.texts import read_texts
from analysis.memory.validity import NOISY, SINGLE, TRAINED, validity_table
from analysis.report.page import report
from sorakit.config import TaskConfig
from sorakit.membership import auc, true_positive_rate
from tests.support.fake_runs import write_run

COUNTS = (1000.0, 100.0, 10.0)


def rows_of(
    right: list[list[bool]],
    *,
    run: str = "a",
    seed: int = 0,
    role: str = PATH,
    split: str = "memorization",
    labels: list[int] | None = None,
    clean: list[int] | None = None,
    index: list[int] | None = None,
    losses: list[list[float]] | None = None,
    copies: list[int] | None = None,
    pool: str = "default",
) -> pd.DataFrame:
    """Return rows of `example_table` of two classes: stages x examples."""
    num = len(right[0])
    names = labels or [0] * num
    clean = clean or names
    tables = []
    for stage, of_stage in enumerate(right):
        loss = losses[stage] if losses else [0.1 if r else 2.0 for r in of_stage]
        tables.append(
            pd.DataFrame(
                {
                    "task": "t", "backbone": "b", "setting": pool, "variant": "", "pool": pool,
                    "seed": seed, "run_id": run, "role": role, "stage": stage, "split": split,
                    "num_nonzero_params": 0.0 if role in (FLOOR, NULL_FLOOR) else COUNTS[stage],
                    "index": index or list(range(num)),
                    "loss": loss,
                    "probability": np.exp(-np.array(loss)),
                    "margin": [1.0 if r else -1.0 for r in of_stage],
                    "correct": of_stage,
                    "prediction": [n if r else 1 - n for n, r in zip(names, of_stage, strict=True)],
                    "is_noisy": [a != b for a, b in zip(names, clean, strict=True)],
                    "clean_label": clean,
                    "copies": copies or [1] * num,
                }
            )
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


# AUC and true positives ---------------------------------------------------------------------


def test_auc_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    inside, outside = generator.integers(0, 9, 70) + 1.0, generator.integers(0, 9, 130) + 0.0
    truth = np.repeat([1, 0], [70, 130])
    assert auc(inside, outside) == pytest.approx(
        roc_auc_score(truth, np.concatenate([inside, outside])), abs=1e-12
    )


def test_true_positives_are_those_of_the_curve_of_scikit_learn():
    generator = np.random.default_rng(1)
    inside, outside = generator.normal(1, 1, 400), generator.normal(0, 1, 1000)
    truth = np.repeat([1, 0], [400, 1000])
    curve = roc_curve(truth, np.concatenate([inside, outside]), drop_intermediate=False)
    assert true_positive_rate(inside, outside) == max(curve[1][curve[0] <= 0.01])


def test_scores_that_say_nothing_have_an_auc_of_one_half():
    assert auc(np.ones(10), np.ones(30)) == 0.5


def test_scores_that_tell_all_have_an_auc_and_true_positives_of_one():
    assert auc([2.0, 3.0], [0.0, 1.0]) == 1
    assert true_positive_rate(np.full(5, 2.0), np.zeros(100)) == 1


def test_too_few_others_allow_no_false_positive():
    assert math.isnan(true_positive_rate([1.0], np.zeros(99)))
    assert math.isnan(auc([1.0], []))


# Noise --------------------------------------------------------------------------------------


def noisy_run(fitted: list[list[bool]], held_out: list[list[bool]], **who) -> pd.DataFrame:
    """Four noisy examples (label 1, clean 0), two clean ones that stay right; validation."""
    trained = [[*row, True, True] for row in fitted]
    return pd.concat(
        [
            rows_of(trained, labels=[1] * 4 + [0] * 2, clean=[0] * 6, **who),
            rows_of(held_out, split="generalization", **who),
        ],
        ignore_index=True,
    )


YES, NO = [True] * 4, [False] * 4
HALF = [True, True, False, False]


def test_curves_part_wrong_labels_from_true_ones():
    curves = noise_curves(noisy_run([YES, HALF, NO], [YES, HALF, HALF]))
    table = curves.pivot(index="stage", columns="curve", values="value")
    assert table[FITTED].tolist() == [1, 0.5, 0]
    assert table[RETURNED].tolist() == [0, 0.5, 1]  # two classes: one or the other
    assert table[CLEAN].tolist() == [1, 1, 1]
    assert table[VALIDATION].tolist() == [1, 0.5, 0.5]
    assert curves.loc[curves["curve"] == FITTED, "count"].tolist() == [4, 4, 4]


def test_half_of_the_noise_is_forgotten_where_the_line_between_two_stages_says_so():
    table = pd.concat(
        [
            noisy_run([YES, HALF, NO], [YES, YES, NO]),
            noisy_run([NO], [HALF], run="f", role=FLOOR),
        ]
    )
    row = noise_forgetting(noise_curves(table)).iloc[0]
    assert (row["fitted_dense"], row["fitted_floor"]) == (1, 0)
    assert row["noise_d50"] == pytest.approx(100)
    # gain of validation: 1, 1, -1; the isotonic line from 10 to 100 is at 0.9 near the end
    assert row["validation_d90"] == pytest.approx(10 ** (1 + 1.9 / 2))
    assert row["ratio"] == pytest.approx(100 / row["validation_d90"])
    assert row["rise"] == 0  # at the stage of 100 parameters validation is as dense


def test_noise_that_the_floor_fits_as_well_is_never_forgotten():
    table = pd.concat(
        [noisy_run([YES, HALF, NO], [YES] * 3), noisy_run([YES], [NO], run="f", role=FLOOR)]
    )
    row = noise_forgetting(noise_curves(table)).iloc[0]
    assert math.isnan(row["noise_d50"])
    assert math.isnan(row["ratio"])


def test_runs_without_noise_are_an_error():
    with pytest.raises(ValueError, match=r"^`RUNS` must hold a run with label noise, got none\."):
        noise_curves(rows_of([[True], [False]]))


# Forgetting ---------------------------------------------------------------------------------

PATTERN = [[True, True, False, True], [True, False, False, False], [True, False, False, True]]


def test_an_example_is_lost_where_it_is_wrong_from_there_on():
    lost = lost_examples(rows_of(PATTERN))
    assert lost["status"].tolist() == [KEPT, LOST, NEVER, KEPT]
    assert lost["kept_params"].tolist()[:2] == [10, 1000]
    assert lost["lost_params"].tolist()[:2] == [0, 100]
    assert math.isnan(lost["lost_params"][2])
    assert lost["events"].tolist() == [0, 1, math.inf, 1]


def test_spectrum_adds_up_to_what_is_lost():
    table = rows_of(PATTERN)
    stages = table.drop_duplicates("stage")[["run_id", "stage", "num_nonzero_params"]]
    found = spectrum(lost_examples(table), stages)
    assert found["share"].tolist() == pytest.approx([0, 1 / 3, 0])
    assert found["left"].tolist() == pytest.approx([1, 2 / 3, 2 / 3])


def test_first_lost_comes_first_and_kept_ones_last():
    order = [[True] * 3, [True, False, True], [False, False, True]]
    table = mean_lost(lost_examples(rows_of(order)))
    assert table["index"].tolist() == [1, 0, 2]
    assert table["kept"].tolist() == [0, 0, 1]


def test_two_seeds_that_lose_in_the_same_order_agree_and_in_the_opposite_one_do_not():
    one = [[True] * 3, [True, True, False], [True, False, False]]
    other = [[True] * 3, [False, True, True], [False, False, True]]
    for second, expected in ((one, 1), (other, -1)):
        table = pd.concat([rows_of(one), rows_of(second, run="b", seed=1)])
        found = seed_agreement(lost_examples(table)).iloc[0]
        assert (found["spearman"], found["pairs"]) == (pytest.approx(expected), 1)


def test_agreement_of_one_seed_is_not_known():
    assert math.isnan(seed_agreement(lost_examples(rows_of(PATTERN)))["spearman"][0])


def test_forgetting_events_count_falls_from_right_to_wrong():
    right = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=bool)
    assert forgetting_events(right).tolist() == [2, 0, math.inf]


def test_data_map_of_a_hand_computed_example():
    chance = [0.2, 0.6, 0.7]
    table = rows_of([[False], [True], [True]], losses=[[-math.log(p)] for p in chance])
    row = data_map(table, axis="stage").iloc[0]
    assert row["confidence"] == pytest.approx(0.5)
    assert row["variability"] == pytest.approx(np.std(chance))
    assert (row["correctness"], row["events"], row["first_learned"]) == (
        pytest.approx(2 / 3), 0, 1,
    )  # fmt: skip


def test_exemplars_are_those_whose_most_frequent_prediction_changes():
    seeds = [
        rows_of([[True, True], second, [True, True]], run=f"r{seed}", seed=seed)
        for seed, second in enumerate(([True, False], [True, False], [False, True]))
    ]
    found = exemplars(pd.concat(seeds))
    assert found[["stage", "index", "dense", "compressed"]].to_numpy().tolist() == [[1, 1, 0, 1]]
    assert found["right_compressed"].tolist() == [pytest.approx(1 / 3)]


def test_exemplars_of_two_seeds_are_an_error():
    with pytest.raises(ValueError, match=r"^`RUNS` must hold 3 seeds of a path"):
        exemplars(pd.concat([rows_of(PATTERN), rows_of(PATTERN, run="b", seed=1)]))


# Bits ---------------------------------------------------------------------------------------


def balanced(losses: list[list[float]], **who) -> pd.DataFrame:
    right = [[loss < math.log(2) for loss in row] for row in losses]
    return rows_of(right, labels=[0, 1, 0, 1], losses=losses, **who)


def with_held_out(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.assign(split="generalization")], ignore_index=True)


def test_perfect_memory_holds_the_entropy_of_the_labels_and_chance_holds_nothing():
    table = with_held_out(balanced([[0.0] * 4, [math.log(2)] * 4, [0.0] * 4]))
    # at chance the loss is log 2 and every label is wrong by this case's rule
    bits = bits_table(table, {"a": 40})
    assert bits["entropy_bits"].tolist() == [1, 1, 1]
    assert bits["prior_bits"].tolist() == pytest.approx([1, 0, 1])
    assert bits["held_out_bits"].tolist() == pytest.approx([1, 0, 1])
    assert bits["prior_capacity"].tolist() == pytest.approx([40 / 1000, 0, 40 / 10])
    assert bits["unintended_bits"].isna().all()


def test_unintended_bits_are_what_the_head_alone_does_not_know_example_by_example():
    one = math.log(2)
    path = balanced([[0.0, 0.0, one, 3 * one]] * 3)
    floor = balanced([[one, 0.0, one, one]], run="f", role=FLOOR)
    bits = bits_table(with_held_out(pd.concat([path, floor])), {"a": 4, "f": 4})
    of_path = bits[bits["run_id"] == "a"]
    # gains in bits: 1, 0, 0, -2, of which the last counts as 0
    assert of_path["unintended_bits"].tolist() == pytest.approx([0.25] * 3)
    assert of_path["unintended_capacity"].tolist() == pytest.approx([1 / 1000, 1 / 100, 1 / 10])
    of_floor = bits[bits["run_id"] == "f"].iloc[0]
    assert of_floor["unintended_bits"] == 0  # without an adapter: the floor's bits, exactly
    assert math.isnan(of_floor["unintended_capacity"])


def test_permuted_labels_have_the_head_of_permuted_labels_as_reference():
    one = math.log(2)
    table = pd.concat(
        [
            balanced([[0.0] * 4] * 3, role="shuffled_labels"),
            balanced([[one] * 4], run="f", role=FLOOR),
            balanced([[0.0] * 4], run="n", role=NULL_FLOOR),
        ]
    )
    bits = bits_table(with_held_out(table), {"a": 4, "f": 4, "n": 4})
    assert bits.loc[bits["run_id"] == "a", "unintended_bits"].tolist() == [0, 0, 0]


def test_label_of_two_classes_is_known_of_what_was_never_right():
    labels = example_labels(rows_of([[True, False], [True, False]], labels=[1, 1]))
    assert labels.tolist() == [1, 1]


def test_code_length_of_a_model_that_learns_nothing_is_that_of_the_prior():
    assert code_length([10, 20, 40], [math.log(2)] * 3, entropy=math.log(2)).tolist() == (
        pytest.approx([10, 20, 40])
    )


def test_code_length_of_a_hand_computed_case():
    # 10 labels by the prior (1 bit each), then 10 at half a bit, then 20 for nothing
    losses = [math.log(2) / 2, 0.0, 9.0]
    lengths = code_length([10, 20, 40], losses, entropy=math.log(2))
    assert lengths.tolist() == pytest.approx([10, 15, 15])


def test_sizes_that_do_not_rise_are_an_error():
    with pytest.raises(ValueError, match=r"^`sizes` must be positive and rise, got \[2, 2\]\.$"):
        code_length([2, 2], [1.0, 1.0], entropy=1.0)


# Membership ---------------------------------------------------------------------------------


def test_loss_tells_members_where_their_loss_is_smaller_and_shuffled_ones_not():
    inside = rows_of([[True] * 3], losses=[[0.1, 0.2, 0.3]])
    outside = rows_of([[True] * 3], split="generalization", losses=[[0.2, 0.4, 0.5]])
    row = membership_table(pd.concat([inside, outside])).iloc[0]
    # wins: 0.1 against 3, 0.2 against 2 and a tie, 0.3 against 2
    assert row["auc"] == pytest.approx((3 + 2.5 + 2) / 9)
    assert (row["attack"], row["members"], row["others"]) == (LOSS, 3, 3)


def test_confidence_is_the_logit_of_the_probability():
    chances = np.array([0.1, 0.5, 0.9])
    assert label_confidence(-np.log(chances)) == pytest.approx(np.log(chances / (1 - chances)))


def test_likelihood_ratio_of_a_hand_computed_run():
    generator = np.random.default_rng(0)
    inside = np.arange(12)[:, None] % 2 == np.zeros((1, 3))
    confidence = generator.normal(size=(12, 3)) + 2 * inside
    scores = likelihood_ratios(confidence, inside)
    run, example = 5, 1
    others = np.arange(12) != run
    sides = [confidence[others & (inside[:, example] == side), example] for side in (True, False)]
    spread = [
        np.sqrt(
            sum(c[chosen[:, e], e].var() * chosen[:, e].sum() for e in range(3))
            / (chosen.sum() - 3)
        )
        for c, chosen in ((confidence, inside), (confidence, ~inside))
    ]
    expected = [
        stats.norm.logpdf(confidence[run, example], side.mean(), s)
        for side, s in zip(sides, spread, strict=True)
    ]
    assert scores[run, example] == pytest.approx(expected[0] - expected[1])


def subset_runs(
    *, effect: float, runs: int = 40, examples: int = 60, permuted: bool = False
) -> pd.DataFrame:
    """Runs on random halves; training on an example lowers its loss by `effect`."""
    generator = np.random.default_rng(3)
    hardness = generator.normal(1.0, 0.5, examples)
    tables = []
    for run in range(runs):
        inside = generator.random(examples) < 0.5
        loss = np.exp(hardness + generator.normal(0, 0.1, examples) - effect * inside)
        if permuted:
            inside = generator.permutation(inside)
        for split, chosen in (("memorization", inside), ("left_out", ~inside)):
            places = np.flatnonzero(chosen)
            right = [[bool(value < 2.0) for value in loss[places]]]
            tables.append(
                rows_of(
                    right, run=f"r{run:02d}", seed=run, split=split, index=places.tolist(),
                    losses=[loss[places].tolist()], copies=[1 + int(p % 5 == 0) for p in places],
                    labels=[int(p % 2) for p in places],
                    clean=[int((p % 2 == 1) != (p % 7 == 0)) for p in places],
                )
            )  # fmt: skip
        tables.append(
            rows_of(
                [[bool(inside[0]), True]], run=f"r{run:02d}", seed=run, split="generalization",
                labels=[0, 1],
            )
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def test_lira_tells_members_of_hard_and_easy_examples_better_than_the_loss():
    table = membership_table(subset_runs(effect=0.4))
    means = table.groupby("attack")["auc"].mean()
    assert means[LIRA] > 0.95
    assert means[LOSS] < 0.8


def test_attacks_on_permuted_members_are_chance():
    table = membership_table(subset_runs(effect=0.4, permuted=True))
    assert table.groupby("attack")["auc"].mean().tolist() == pytest.approx([0.5, 0.5], abs=0.05)


# Counterfactual memorization ----------------------------------------------------------------


def test_memorization_is_the_difference_of_two_shares_with_its_error():
    tables = []
    for run in range(8):
        inside = run < 4
        right = (run < 3) if inside else (run == 4)  # 3 of 4 inside, 1 of 4 outside
        split = "memorization" if inside else "left_out"
        other = "left_out" if inside else "memorization"
        tables.append(rows_of([[right]], run=f"r{run}", seed=run, split=split, index=[7]))
        tables.append(rows_of([[True]], run=f"r{run}", seed=run, split=other, index=[8]))
    found = counterfactual_memorization(pd.concat(tables)).set_index("index")
    assert found["memorization"].tolist() == [0.5, 0]
    # two sides of 4 with shares 3/4 and 1/4: variance 3/16 * 4/3 / 4 each
    assert found["se"][7] == pytest.approx(math.sqrt(2 * (3 / 16) * (4 / 3) / 4))
    assert found["se"][8] == 0
    sides = ["right_in", "right_out", "runs_in", "runs_out"]
    assert found.loc[7, sides].tolist() == [0.75, 0.25, 4, 4]


def test_permuted_membership_has_no_memorization():
    found = counterfactual_memorization(subset_runs(effect=1.0, permuted=True, runs=80))
    truth = counterfactual_memorization(subset_runs(effect=1.0, runs=80))
    assert abs(found["memorization"].mean()) < 0.03
    assert truth["memorization"].mean() > 0.3


def test_influence_is_that_of_the_example_that_decides_and_of_no_other():
    table = influence(subset_runs(effect=0.4))
    first = table.iloc[0]
    assert (first["index"], first["held_out"], first["influence"]) == (0, 0, 1)
    others = table[(table["index"] != 0) & table["z"].notna()]
    assert not others["is_told"].any()


def test_influence_matrix_is_the_loop_over_pairs():
    generator = np.random.default_rng(5)
    right = (generator.random((20, 3)) < 0.6).astype(float)
    inside = generator.random((20, 4)) < 0.5
    values, errors = influence_matrix(right, inside)
    for i in range(4):
        for j in range(3):
            a, b = right[inside[:, i], j], right[~inside[:, i], j]
            assert values[i, j] == pytest.approx(a.mean() - b.mean())
            expected = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
            assert errors[i, j] == pytest.approx(expected)


def test_too_few_runs_on_subsets_are_an_error():
    message = r"^`RUNS` must hold 8 runs on subsets of one pool, got 3\."
    with pytest.raises(ValueError, match=message):
        counterfactual_memorization(subset_runs(effect=1.0, runs=3))


@pytest.mark.parametrize(
    ("setting", "pool"),
    [
        ("train_examples=3, subset_fraction=0.7, subset_seed=12", "train_examples=3, "
         "subset_fraction=0.7"),
        ("subset_seed=12, max_length=64", "max_length=64"),
        ("default", "default"),
    ],
)  # fmt: skip
def test_pool_is_the_setting_without_the_seed_of_the_subset(setting, pool):
    assert pool_of(setting) == pool


# Validity -----------------------------------------------------------------------------------


def test_validity_of_measures_that_know_and_of_one_that_cannot():
    table = validity_table(subset_runs(effect=0.4))
    by = table.set_index(["measure", "question"])["auc"]
    assert by["LiRA", TRAINED] > 0.95
    assert 0.5 < by["low loss", TRAINED] < 0.8
    assert by["variability over stages", TRAINED] == 0.5  # of one stage: none
    assert {NOISY, SINGLE} <= set(table["question"])
    assert (table["low"].dropna() <= table.loc[table["low"].notna(), "auc"]).all()


# Command line -------------------------------------------------------------------------------


def test_verb_of_runs_without_what_it_needs_exits_2_in_one_line(tmp_path: Path, capsys):
    assert main(["noise", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_page_of_records_without_predictions_says_so_and_warns_of_nothing(tmp_path: Path):
    write_run(tmp_path)
    html = report(load_runs([tmp_path])).html
    section = html[html.index('<section id="memory">') : html.index('<section id="ranks">')]
    assert "records of its examples&#39; predictions, got none." in section
    assert "missing" not in section


def test_first_and_last_lost_texts_are_listed_and_escaped(tmp_path: Path):
    path = write_run(tmp_path)
    table = pd.concat([rows_of(PATTERN), rows_of(PATTERN, split="generalization")])
    names = ["stage", "split", "index", "loss", "correct", "prediction", "probability", "is_noisy"]
    table[names].to_parquet(path / "examples.parquet")
    file = tmp_path / "texts.csv"
    rows = [f"memorization,{index},a,<b>text {index}</b>" for index in range(4)]
    file.write_text("\n".join(["split,index,label,text", *rows]))
    html = report(load_runs([tmp_path]), texts=read_texts(file)).html
    section = html[html.index("First and last lost") :]
    # lost at the second stage, before the two that are right at the last one
    assert section.index("&lt;b&gt;text 1&lt;/b&gt;") < section.index("&lt;b&gt;text 0&lt;/b&gt;")
    assert "<b>text" not in section


def test_texts_that_are_no_such_table_are_an_error(tmp_path: Path):
    file = tmp_path / "texts.csv"
    with pytest.raises(ValueError, match=r"^`--texts` must be a file, got "):
        read_texts(file)
    file.write_text("split,text\n")
    with pytest.raises(ValueError, match=r"^`--texts` must have the columns .* without index, lab"):
        read_texts(file)


def test_runs_on_subsets_of_one_pool_are_one_dataset(tmp_path: Path):
    for subset_seed in range(2):
        task = TaskConfig(name="pydoc_order", subset_fraction=0.7, subset_seed=subset_seed)
        path = write_run(tmp_path, task=task)
        names = ["stage", "split", "index", "loss", "correct", "prediction", "probability"]
        table = rows_of(PATTERN)[names].assign(is_noisy=False)
        table.to_parquet(path / "examples.parquet")
    found = example_table(load_runs([tmp_path]))
    assert set(found["setting"]) == {"subset_fraction=0.7"}
    assert found["run_id"].nunique() == 2
