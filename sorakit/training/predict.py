"""Predictions of one stage of a run for texts without labels."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sorakit.backbones import load_backbone
from sorakit.metric_names import INDEX
from sorakit.objectives import objective
from sorakit.options import run_config
from sorakit.quoting import quoted
from sorakit.records import ADAPTERS_DIR, Run, stage_name
from sorakit.tasks.unlabelled import read_texts
from sorakit.training.batches import evaluation_batches
from sorakit.training.data import model_inputs
from sorakit.training.tokens import tokenise


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Answers for the rows of a file, in its order.

    Attributes:
        class_names: Classes in the order of their index; empty where answers are numbers.
        outputs: Probabilities of the classes, (rows, classes), or the numbers, (rows, 1); float32.
    """

    class_names: tuple[str, ...]
    outputs: Tensor

    @property
    def classes(self) -> list[int]:
        """Index of the most probable class of every row."""
        return self.outputs.argmax(dim=1).tolist()

    @property
    def numbers(self) -> list[float]:
        """The number of every row, of a regression."""
        return self.outputs.squeeze(1).tolist()


def predict(run: Run, stage: int, file: Path) -> Predictions:
    """Return what the adapter of a stage says of the texts in a file, computed in float32.

    Args:
        run: The run.
        stage: One of its stages, whose adapter is there.
        file: Texts in the columns of the run's task.

    Raises:
        ValueError: If the file is wrong, or the base model is gone.
    """
    config = run_config(run.config)
    interface = run.meta.get("interface")
    if interface is None:
        raise ValueError(
            f"`RUN` must record what its classes are, got {quoted(str(run.path))} of an older "
            "sorakit. Run it again."
        )
    class_names = tuple(interface["class_names"])
    of_older = "classification" if class_names else "regression"
    name = interface.get("objective", of_older)
    if interface.get("labels") == "texts" or interface.get("inputs") == "images":
        raise ValueError(
            "`RUN` must be one that reads texts and answers with a class or a number, got "
            f"{quoted(str(run.path))} with the objective {name}. Export it, and use it as its "
            "README.md says."
        )
    goal = objective(name)
    split = read_texts(file, config.task)
    torch.manual_seed(config.seed)
    backbone = load_backbone(config.backbone, objective=goal, label_names=class_names)
    folder = run.path / ADAPTERS_DIR / stage_name(stage)
    head = goal.head_modules(backbone.model)
    model = config.method.adapter.load(backbone.model, folder, config, head=head)
    tokenizer = backbone.text_tokenizer
    tokenizer.padding_side = interface["padding_side"]
    tokens = tokenise(split, tokenizer, objective=goal, max_length=config.task.max_length)
    outputs = torch.empty(len(tokens), max(len(class_names), 1))
    with torch.no_grad():
        for rows in evaluation_batches(tokens.lengths, config.optim.eval_batch_size):
            examples = tokens.rows(rows)
            batch = goal.collate(examples, tokenizer, length=interface["padded_to"])
            logits = model(**model_inputs(batch)).logits.float()
            answers = logits.softmax(dim=1) if class_names else logits
            outputs[[row[INDEX] for row in examples]] = answers
    return Predictions(class_names=class_names, outputs=outputs)


def predictions_csv(predictions: Predictions) -> str:
    """Return a row an example: its class, and the probability of every class; or its number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = predictions.class_names
    if not names:
        writer.writerow(["row", "prediction"])
        writer.writerows([row, f"{value:.6g}"] for row, value in enumerate(predictions.numbers))
        return stream.getvalue()
    writer.writerow(["row", "prediction", *(f"probability_{name}" for name in names)])
    for row, (index, values) in enumerate(
        zip(predictions.classes, predictions.outputs.tolist(), strict=True)
    ):
        writer.writerow([row, names[index], *(f"{value:.6f}" for value in values)])
    return stream.getvalue()


_SUBMISSIONS = {
    "cola": "CoLA.tsv",
    "sst2": "SST-2.tsv",
    "mrpc": "MRPC.tsv",
    "qqp": "QQP.tsv",
    "stsb": "STS-B.tsv",
    "mnli": "MNLI-m.tsv",
    "mnli_mismatched": "MNLI-mm.tsv",
    "qnli": "QNLI.tsv",
    "rte": "RTE.tsv",
    "wnli": "WNLI.tsv",
}
"""Task -> name of its file in a submission to gluebenchmark.com."""
_BY_NAME = ("mnli", "mnli_mismatched", "qnli", "rte")
"""Tasks whose submission names classes; the others give their index."""
_STSB_RANGE = (0.0, 5.0)


def submission(predictions: Predictions, task: str) -> tuple[str, str]:
    """Return name and content of a task's file in a submission to the GLUE benchmark.

    Args:
        predictions: For the official test file, in its order.
        task: A GLUE task.

    Raises:
        ValueError: If it is none.
    """
    if task not in _SUBMISSIONS:
        raise ValueError(
            f"`RUN` must be of a GLUE task for `--glue`, got {quoted(task)}. The tasks are "
            f"{', '.join(_SUBMISSIONS)}."
        )
    answers: Sequence[object]
    if task == "stsb":
        low, high = _STSB_RANGE
        answers = [f"{min(max(value, low), high):.3f}" for value in predictions.numbers]
    elif task in _BY_NAME:
        answers = [predictions.class_names[index] for index in predictions.classes]
    else:
        answers = predictions.classes
    lines = ["index\tprediction", *(f"{row}\t{answer}" for row, answer in enumerate(answers))]
    return _SUBMISSIONS[task], "\n".join(lines) + "\n"
