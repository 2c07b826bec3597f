"""Which part may know which: read from the source, without importing anything."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = sorted(SOURCE.glob("byol/**/*.py"))
LAYERS = [
    {
        *("config", "types", "errors", "duration", "randomness", "rundir", "settings"),
        *("allocation", "machine", "methods", "recipe_files", "tracking"),
    },
    {"augment", "optim"},
    {"core", "data"},
    {"weights"},
    {"bundle"},
    {"evaluation"},
    {"training"},
    {"reporting"},
    {"cli", "__init__", "__main__"},
]
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
TOP = len(LAYERS) - 1
HOMES = {
    "lightning": ("byol.training",),
    "timm": ("byol.core.group_normalization", "byol.core.named_backbone", "byol.core.processes"),
    "sklearn": ("byol.data.digits", "byol.reporting.demo_picture"),  # the last: t-SNE
    "matplotlib": ("byol.reporting", "byol.evaluation.pictures", "byol.evaluation.segmentation_picture"),
    "torchmetrics": ("byol.evaluation.pixel_metrics",),
    "mlflow": ("byol.tracking",),
}
TESTS_ONLY = ("accelerate", "kornia")
STDLIB_ONLY = ("config", "errors", "duration", "machine", "methods")
MAX_FILE, MAX_FUNCTION = 350, 80


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def part_of(module: str) -> str:
    """Return the module or package directly under byol that holds this one."""
    return [*module.split("."), "__init__"][1]


def imports(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names a file imports, wherever in it, except for type checkers only."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from imports(child, package)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: 1 - node.level or None] if node.level else []
        origin = ".".join([*above, node.module] if node.module else above)
        for alias in node.names:
            inner = f"{origin}.{alias.name}"
            yield inner if inner in MODULES else origin
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package)


def imports_of(module: str) -> list[str]:
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return list(imports(ast.parse(file.read_text()), package))


IMPORTS = {module: imports_of(module) for module in MODULES}


def internal(module: str) -> list[str]:
    return [name for name in IMPORTS[module] if name == "byol" or name.startswith("byol.")]


def test_the_reader_of_imports_sees_every_kind() -> None:
    source = """
import os, byol.errors
from byol import bundle
from . import lars
from ..core.target import TargetNetwork
if TYPE_CHECKING:
    import byol.cli
else:
    import json
def function():
    from byol.optim import lars
"""
    assert list(imports(ast.parse(source), "byol.optim")) == [
        *(
            "os",
            "byol.errors",
            "byol.bundle",
            "byol.optim.lars",
            "byol.core.target",
            "json",
            "byol.optim.lars",
        )
    ]


def test_every_part_has_its_layer() -> None:
    assert {part_of(module) for module in MODULES} <= LAYER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_part_and_lower_layers_only(module: str) -> None:
    part = part_of(module)
    if LAYER[part] == TOP:
        return
    for name in internal(module):
        other = part_of(name)
        lowest = LAYER[part] == LAYER[other] == 0
        assert other == part or lowest or LAYER[other] < LAYER[part], f"{module} imports {name}"


@pytest.mark.parametrize("part", STDLIB_ONLY)
def test_the_lowest_modules_need_the_standard_library_only(part: str) -> None:
    import sys

    modules = [module for module in MODULES if part_of(module) == part]
    assert modules
    for name in (name for module in modules for name in IMPORTS[module]):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or part_of(name) in STDLIB_ONLY, name


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_has_one_home(library: str) -> None:
    users = {module for module, names in IMPORTS.items() for name in names if name.split(".")[0] == library}
    for module in users:
        at_home = any(module == home or module.startswith(f"{home}.") for home in HOMES[library])
        assert at_home, f"{module} imports {library}"
    assert users, f"{library} is used nowhere: drop the rule and the dependency"


@pytest.mark.parametrize("library", TESTS_ONLY)
def test_what_other_systems_need_is_not_needed_here(library: str) -> None:
    users = [module for module, names in IMPORTS.items() if library in {name.split(".")[0] for name in names}]
    assert not users


def test_every_library_is_declared() -> None:
    """One that comes along with another may stay away with its next version."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["mlflow"], *extras["wandb"]]
    declared = {re.split(r"[\[>]", requirement)[0] for requirement in requirements}
    imported = {name.split(".")[0] for names in IMPORTS.values() for name in names} - sys.stdlib_module_names
    sources = packages_distributions()
    assert "torch" in imported
    for package in imported - {"byol"}:
        named = {source.lower().replace("_", "-") for source in sources[package]}
        assert named & declared, f"{package} comes from {' or '.join(named)}: name it in pyproject.toml"


def test_pickles_are_read_onto_the_cpu_and_without_running_code() -> None:
    readers = 0
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given == {"map_location": "'cpu'", "weights_only": "True"}, module
                readers += 1
    assert readers


def test_no_modules_import_each_other_in_a_circle() -> None:
    visiting: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in visiting, " -> ".join([*visiting[visiting.index(module) :], module])
        if module in done:
            return
        visiting.append(module)
        for name in internal(module):
            if name in MODULES:
                visit(name)
        done.add(visiting.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short(module: str) -> None:
    source = MODULES[module].read_text()
    assert len(source.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{module}.{node.name}"
