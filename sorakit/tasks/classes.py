"""Labels of a file as classes: one rule for whole numbers, and a refusal of what cannot be meant.

A whole number is the same class however a file writes it: 1, 1.0, "1" and "1.0" are class 1. Any
other text is a class of its own name ("01" is not 1), and true and false are True and False.
"""

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sorakit.quoting import listed, quoted
from sorakit.tasks.tables import Chunk

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_MANY_CLASSES = 20
"""Up to so many classes are never refused for their number."""


class ClassCounter:
    """Gives every label of a file a number, in order of appearance, and remembers where it was.

    Args:
        column: Column of the labels.
        key: Option that names the file, for messages.
    """

    def __init__(self, column: str, *, key: str) -> None:
        self._column = column
        self._key = key
        self.file = ""
        self.codes: dict[str, int] = {}
        self.places: list[str] = []
        self._labels: list[object] = []
        self._numbers: list[np.ndarray] = []

    def add(self, chunk: Chunk) -> None:
        """Take the labels of a chunk.

        Raises:
            ValueError: If one is neither a text nor a number.
        """
        self.file = chunk.file
        codes = self.codes
        numbers = np.empty(len(chunk.columns[self._column]), dtype=np.int64)
        for index, label in enumerate(chunk.columns[self._column]):
            name = class_name(label)
            if name is None:
                raise ValueError(
                    f"`{self._key}`: label {quoted(label)} in column {self._column!r}, "
                    f"{chunk.place(index)}, must be a text or a whole number."
                )
            if name not in codes:
                codes[name] = len(codes)
                self.places.append(f"column {self._column!r}, {chunk.place(index)}")
                self._labels.append(label)
            numbers[index] = codes[name]
        self._numbers.append(numbers)

    @property
    def numbers(self) -> np.ndarray:
        """The number of every label, as many as rows."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, dtype=np.int64)

    def class_names(self) -> tuple[str, ...]:
        """Return the classes of training data: sorted as numbers if all are, otherwise as texts.

        Raises:
            ValueError: If the labels are scores, differ in spelling only, are nearly as many as
                the examples, or are all the same.
        """
        self._reject_scores()
        self._reject_spellings()
        self._reject_too_many()
        names = list(self.codes)
        if len(names) < 2:
            raise ValueError(
                f"`{self._key}` must hold at least 2 classes, got only {quoted(names[0])} in "
                f"column {self._column!r} of {self.file}."
            )
        if all(_WHOLE.fullmatch(name) for name in names):
            return tuple(sorted(names, key=int))
        return tuple(sorted(names))

    def indices(self, label_names: Sequence[str]) -> np.ndarray:
        """Return the index in `label_names` of every label.

        Raises:
            ValueError: If a label is none of them.
        """
        position = {class_name(name): index for index, name in enumerate(label_names)}
        for name, code in self.codes.items():
            if name not in position:
                alike = next((n for n in label_names if _spelling(n) == _spelling(name)), None)
                meant = "" if alike is None else f" Is {quoted(alike)} meant?"
                raise ValueError(
                    f"`{self._key}`: label {quoted(name)} in {self.places[code]} must be one of "
                    f"the training classes ({listed(label_names)}).{meant}"
                )
        table = np.asarray([position[name] for name in self.codes], dtype=np.int64)
        return table[self.numbers]

    def _reject_scores(self) -> None:
        if not all(_is_number(name) for name in self.codes):
            return
        fraction = next((name for name in self.codes if not float(name).is_integer()), None)
        if fraction is None:
            if len(self.codes) > _MANY_CLASSES:
                warnings.warn(
                    f"`{self._key}`: {len(self.codes):,} whole numbers in column {self._column!r} "
                    f"of {self.file} are taken as classes ({listed(self.codes)}). Scores need "
                    "`task.metric` pearson or spearman.",
                    stacklevel=4,
                )
            return
        code = self.codes[fraction]
        raise ValueError(
            f"`{self._key}`: label {quoted(self._labels[code])} in {self.places[code]} must be a "
            f"text or a whole number; all {len(self.codes):,} labels are numbers "
            f"({listed(self.codes)}). Scores need `task.metric` pearson or spearman."
        )

    def _reject_spellings(self) -> None:
        spellings: dict[str, list[str]] = defaultdict(list)
        for name in self.codes:
            spellings[_spelling(name)].append(name)
        twins = next((names for names in spellings.values() if len(names) > 1), None)
        if twins is not None:
            shown = ", ".join(quoted(name, longest=40) for name in twins[:4])
            raise ValueError(
                f"`{self._key}`: labels of column {self._column!r} of {self.file} must differ in "
                f"more than case and spaces, got {shown} (the second in "
                f"{self.places[self.codes[twins[1]]]}). Write every class in one way."
            )

    def _reject_too_many(self) -> None:
        count, examples = len(self.codes), len(self.numbers)
        if 2 * count <= examples:
            return
        seen = f"{count:,} different labels in {examples:,} rows of {self.file}"
        if count > _MANY_CLASSES:
            raise ValueError(
                f"`task.label_column` must be the column of the classes, got {self._column!r} with "
                f"{seen} ({listed(self.codes)}). Are text and label columns swapped?"
            )
        if examples > _MANY_CLASSES // 2:
            warnings.warn(
                f"`{self._key}`: column {self._column!r} has {seen}, which is hardly an example a "
                "class.",
                stacklevel=4,
            )


def class_name(label: object) -> str | None:
    """Return the name of the class that a label means; None if it can mean none."""
    if isinstance(label, str):
        whole = _WHOLE.fullmatch(label)
        if whole is not None:
            return "0" if whole[1] == "-0" else whole[1]
        return label if label.strip() else None
    if isinstance(label, float):
        if not math.isfinite(label):
            return None
        return str(int(label)) if label.is_integer() else str(label)
    return str(label) if isinstance(label, int) else None


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _spelling(name: str) -> str:
    return " ".join(name.split()).casefold()
