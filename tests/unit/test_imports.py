"""Every module imports with the core dependencies alone, and the light ones without torch."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from sorakit.variants import ADAPTERS, CONTROLS, GATES, MEASURES, Family

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "sorakit").rglob("*.py"))
MODULES = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]


def normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def core_packages() -> set[str]:
    """Return the top-level modules that the core dependencies in pyproject.toml install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (re.match(r"[\w.-]+", requirement) for requirement in project["dependencies"])
    core = {normalized(name.group()) for name in names if name}
    owners = packages_distributions().items()
    return {module for module, dists in owners if core & {normalized(dist) for dist in dists}}


def imported_on_import(node: ast.AST) -> Iterator[str]:
    """Yield the top-level modules that `node` imports outside functions and TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module.partition(".")[0]
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imported_on_import(ast.Module(body=child.orelse, type_ignores=[]))
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported_on_import(child)


def undeclared_imports(source: str) -> set[str]:
    known = core_packages() | set(sys.stdlib_module_names) | {"sorakit"}
    return set(imported_on_import(ast.parse(source))) - known


def run_python(code: str) -> str:
    """Return what `code` prints in a fresh interpreter, with warnings left at their defaults."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imports_torch(module: str) -> bool:
    return run_python(f"import sys, {module}; print('torch' in sys.modules)") == "True"


@pytest.mark.parametrize("module", MODULES)
def test_module_imports(module: str):
    importlib.import_module(module)


@pytest.mark.parametrize(
    "module",
    [
        "sorakit",
        "sorakit.config",
        "sorakit.variants",
        "sorakit.measures",
        "sorakit.records",
        "sorakit.retention",
        "sorakit.metric_names",
        "sorakit.training.inputs",
        "sorakit.schedule.schedule",
        "sorakit.cli",
        "sorakit.sweep.display",  # with it grid, plan and cost
        "sorakit.sweep.driver",
        "sorakit.sweep.ray_engine",
        "sorakit.sweep.status",
    ],
)
def test_light_module_does_not_import_torch(module: str):
    assert not imports_torch(module)


@pytest.mark.parametrize(
    "family", [ADAPTERS, CONTROLS, GATES, MEASURES], ids=lambda family: family.option
)
def test_variants_are_loaded_without_torch(family: Family):
    code = f"import sys; from sorakit.variants import Family; f = Family('', {family.package!r}); "
    code += "[f.load(name) for name in f.names]; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_import_of_torch_is_noticed():
    assert imports_torch("torch")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_module_imports_only_core_dependencies(path: Path):
    assert undeclared_imports((ROOT / path).read_text()) == set()


def test_import_of_an_extra_is_noticed():
    source = "import torch.nn, os\ntry:\n    from matplotlib import pyplot\nfinally:\n    pass\n"
    source += "if TYPE_CHECKING:\n    import ray\nelse:\n    import pwlf\n"
    source += "def late():\n    import seaborn\n"
    assert undeclared_imports(source) == {"matplotlib", "pwlf"}


NOT_IMPORTED = {
    "protobuf": "transformers reads spm.model files with it",
    "sentencepiece": "transformers reads spm.model files with it",
}
"""Dependency that no module imports -> who does."""


def imported_anywhere() -> set[str]:
    folders = ("sorakit", "analysis")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w.-]+", requirement) for requirement in project["dependencies"]]
    declared = {normalized(name.group()) for name in names if name}
    modules: dict[str, set[str]] = {}
    for module, owners in packages_distributions().items():
        for owner in owners:
            modules.setdefault(normalized(owner), set()).add(module)
    used = imported_anywhere()
    unused = {name for name in declared if not modules.get(name, {name.replace("-", "_")}) & used}
    assert unused == set(NOT_IMPORTED)
