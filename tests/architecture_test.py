"""The rules of the layout, read off the source with `ast`, and a broken package on which each rule must fire."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
LAYERS: tuple[tuple[str, ...], ...] = (
    ("site", "edit", "rule", "task", "circuit", "dictionary", "direction", "finding", "pictures", "errors"),
    ("metrics", "store", "evidence"),
    ("network", "worlds"),
    ("tasks", "results"),
    ("zoo",),
    (
        *("causal", "attribution", "circuits", "dictionaries", "lenses", "weights"),
        *("probes", "geometry", "vision", "multimodal", "control"),
    ),
    ("faithfulness",),
    ("learning",),
    ("boards",),
    ("recipes", "studies", "reports"),
    ("web", "cli"),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
SAME_LAYER = {("reports", "openwork.studies.schema")}
"""A report is written from the study's record, so it may know the record's fields and nothing else of the study."""

ONLY_IN = {
    "transformers": {"network", "zoo", "recipes"},
    "matplotlib": {"reports"},
    "urllib.request": {"store"},
    "requests": {"store"},
    "huggingface_hub": {"store"},
    "http.server": {"web"},
    "typer": {"cli"},
}
UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
VAGUE = {"utils", "util", "common", "misc", "helper", "helpers", "tools", "shared", "stuff"}
MAX_LINES, MAX_METHODS = 500, 15


def part_of(name: str) -> str:
    return [*name.split("."), ""][1]


@dataclass(frozen=True)
class Module:
    """One file of the package: its dotted name, its path, and what it imports anywhere in it."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @property
    def part(self) -> str:
        """The name directly below ``openwork``: a folder, a root file, or ``""`` for the root itself."""
        return part_of(self.name)

    @cached_property
    def imports(self) -> set[str]:
        """Every dotted name it imports; ``from a import b`` counts as ``a.b``, which `resolve` shortens again."""
        return set(self._imported(self.tree))

    @cached_property
    def run_imports(self) -> set[str]:
        """Those that run, also inside functions; what only a type checker imports cannot make a cycle."""
        typing_only = [
            n for n in ast.walk(self.tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
        ]
        return self.imports - {name for node in typing_only for name in self._imported(node)}

    def _imported(self, tree: ast.AST) -> Iterator[str]:
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from (f"{base}.{alias.name}" for alias in node.names)


def modules_of(folder: Path) -> dict[str, Module]:
    """Every module of the package `folder`, by dotted name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def resolve(name: str, modules: dict[str, Module]) -> str | None:
    """The module of the package that an imported name lies in, or None outside the package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def dependencies(modules: dict[str, Module], running: bool = False) -> Iterator[tuple[Module, str]]:
    """(module, module it imports) within the package; the lazy root refers to all and depends on none."""
    for module in modules.values():
        if module.part:
            for name in sorted(module.run_imports if running else module.imports):
                target = resolve(name, modules)
                if target is not None and target != module.name:
                    yield module, target


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def upward_imports(modules: dict[str, Module]) -> Iterator[str]:
    for module, target in dependencies(modules):
        part = part_of(target)
        if module.part not in LAYER_OF or (part and part not in LAYER_OF):
            yield f"{module.name} or {target} has no place in the layers"
        elif not part:
            yield f"{module.name} imports the root, which hides what it depends on"
        elif part != module.part and (module.part, target) not in SAME_LAYER:
            same_nouns = LAYER_OF[part] == LAYER_OF[module.part] == 0
            if LAYER_OF[part] >= LAYER_OF[module.part] and not same_nouns:
                yield f"{module.name} (layer {LAYER_OF[module.part]}) imports {target} (layer {LAYER_OF[part]})"


def import_cycles(modules: dict[str, Module]) -> Iterator[str]:
    graph = nx.DiGraph((module.name, target) for module, target in dependencies(modules, running=True))
    for group in nx.strongly_connected_components(graph):
        if len(group) > 1:
            yield "import each other: " + ", ".join(sorted(group))


def misplaced_libraries(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        for library, allowed in ONLY_IN.items():
            if module.part not in allowed and any(within(name, library) for name in module.imports):
                yield f"{module.name} imports {library}, which belongs in {sorted(allowed)}"


def vague_names(modules: dict[str, Module]) -> Iterator[str]:
    for name in modules:
        if VAGUE & set(name.split(".")):
            yield f"{name} says nothing about what is in it"


def long_files(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        lines = len(module.path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            yield f"{module.name} has {lines} lines; at most {MAX_LINES}"


def wide_classes(modules: dict[str, Module]) -> Iterator[str]:
    """Classes with too many public methods; what is read as an attribute is none."""
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                methods = {
                    item.name
                    for item in node.body
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not item.name.startswith("_")
                    and not any("property" in ast.unparse(decorator) for decorator in item.decorator_list)
                }
                if len(methods) > MAX_METHODS:
                    yield f"{module.name}.{node.name} has {len(methods)} public methods; at most {MAX_METHODS}"


def unsafe_calls(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        read = {ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
        for name in sorted(read | module.imports):
            library, _, member = name.partition(".")
            if library in UNSAFE and member and not member.endswith("Error"):
                yield f"{module.name} uses {name}, which runs code from files"
        for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
            said = ast.unparse(call.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if said in ("eval", "exec"):
                yield f"{module.name}:{call.lineno} calls {said}"
            if said == "torch.load" and given.get("weights_only") != "True":
                yield f"{module.name}:{call.lineno} calls torch.load without weights_only=True"
            if given.get("allow_pickle") == "True" or given.get("trust_remote_code") == "True":
                yield f"{module.name}:{call.lineno} lets a file run code"


RULES: tuple[Callable[[dict[str, Module]], Iterator[str]], ...] = (
    upward_imports,
    import_cycles,
    misplaced_libraries,
    vague_names,
    long_files,
    wide_classes,
    unsafe_calls,
)
by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@by_name
def test_openwork_keeps_the_rule(rule: Callable[[dict[str, Module]], Iterator[str]]) -> None:
    modules = modules_of(ROOT / "src" / "openwork")
    assert len(modules) > 10
    assert list(rule(modules)) == []


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_files_elsewhere_are_short_and_named_for_what_they_hold(folder: str) -> None:
    modules = {n: m for n, m in modules_of(ROOT / folder).items() if ".venv" not in m.path.parts}
    assert list(long_files(modules)) + list(vague_names(modules)) == []


BROKEN: dict[str, dict[str, str]] = {
    "upward_imports": {"metrics/a.py": "def f():\n    from openwork.network import open\n"},
    "import_cycles": {"metrics/a.py": "from openwork.metrics import b\n", "metrics/b.py": "from .a import x\n"},
    "misplaced_libraries": {"causal/a.py": "from transformers import AutoModel\n"},
    "vague_names": {"store/utils.py": ""},
    "long_files": {"store/a.py": "x = 1\n" * 501},
    "wide_classes": {"store/a.py": "class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(16))},
    "unsafe_calls": {"store/a.py": "import torch\ntorch.load('a.pt')\n"},
}


@by_name
def test_rule_fires_on_a_broken_package(rule: Callable[..., Iterator[str]], tmp_path: Path) -> None:
    files = {"__init__.py": "", "metrics/__init__.py": "", "network/__init__.py": "", **BROKEN[rule.__name__]}
    for name, text in files.items():
        (tmp_path / "openwork" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "openwork" / name).write_text(text, encoding="utf-8")
    assert len(list(rule(modules_of(tmp_path / "openwork")))) == 1


@pytest.mark.parametrize(
    ("who", "source", "allowed"),
    [
        ("reports", "from openwork.studies.schema import Study", True),
        ("reports", "from openwork.studies import study", False),
        ("studies", "from openwork.reports import render", False),
        ("causal", "from openwork.circuits import discover", False),
        ("circuits", "from openwork.faithfulness import faithfulness", False),
        ("network", "import openwork", False),
        ("network", "from openwork import errors", True),
    ],
)
def test_which_siblings_may_import_each_other(who: str, source: str, allowed: bool, tmp_path: Path) -> None:
    names = ["", "errors", "studies", "studies/schema", "reports", "causal", "circuits", "faithfulness", "network"]
    for name in names:
        folder = tmp_path / "openwork" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(source if name == who else "", encoding="utf-8")
    assert (list(upward_imports(modules_of(tmp_path / "openwork"))) == []) is allowed


@pytest.mark.parametrize("module", ["openwork", "openwork.cli"])
def test_import_loads_neither_torch_nor_transformers(module: str) -> None:
    script = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
