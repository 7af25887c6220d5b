"""Options whose values are files: one value, one file of that name, one object in it.

The files are found by name when the program runs, so that `config` may ask a variant for its rules
and `records` for the role of a run, and neither imports a layer above it. Therefore the file of a
gate update, an adapter or a measure imports torch, peft and transformers inside its functions only:
`sorakit --help` asks them too.
"""

import ast
import importlib
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

OBJECT = "VARIANT"
"""Name of the object in the file of a variant."""


@dataclass(frozen=True)
class Family:
    """All values of one option.

    Attributes:
        option: The option in messages, for example `gates.update`.
        package: The package that holds their files, and what they have in common.
    """

    option: str
    package: str

    @property
    def _folder(self) -> Path:
        return Path(__file__).parents[1].joinpath(*self.package.split("."))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The values: the files of the package, sorted; those that begin with _ are none."""
        found = (module.name for module in pkgutil.iter_modules([str(self._folder)]))
        return tuple(sorted(name for name in found if not name.startswith("_")))

    def sentence(self, name: str) -> str:
        """Return what the file of a value says of itself: the first line of its docstring."""
        text = (self._folder / f"{name}.py").read_text("utf-8")
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]

    def load(self, name: str) -> Any:
        """Return the object of a value.

        Raises:
            ValueError: If there is no file of that name.
        """
        if name not in self.names:
            raise ValueError(
                f"`{self.option}` must be one of {', '.join(self.names)}, got {name!r}."
            )
        return getattr(importlib.import_module(f"{self.package}.{name}"), OBJECT)


GATES = Family("gates.update", "sorakit.method.gates")
ADAPTERS = Family("method.name", "sorakit.adapters")
CONTROLS = Family("stage.control", "sorakit.controls")
OBJECTIVES = Family("objective", "sorakit.objectives")
MEASURES = Family("measure", "sorakit.measures")
OPTIONS = (ADAPTERS, CONTROLS, GATES)
"""Families that are options of `sorakit run`."""
