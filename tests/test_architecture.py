"""The arrows between the rooms go one way, and the rooms stay small."""

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pacore_lab", "strategies", "backends", "experiments", "tests")
SEAM = {"pacore_lab.errors", "pacore_lab.types", "pacore_lab.votes", "pacore_lab.interfaces"}
FLOORS = [
    {"errors", "types", "votes"}, {"interfaces"}, {"sampling", "problems"}, {"grading"}, {"results"}, {"analysis"},
    {"showing"}, {"running"}, {"config"}, {"training"}, {"commands"},
]  # fmt: skip
"""The rooms of pacore_lab from the ground up; those of one floor do not know each other."""
DOORS = {"pacore_lab/__init__.py", "pacore_lab/__main__.py"}
"""What opens onto every floor: the package's public names, and its commands. Nothing inside imports them."""


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[0]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(file: Path) -> frozenset[str]:
    """Modules a file imports, also inside functions; `from a import b` counts as a.b where b is a module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module_of(file).split(".")[: -node.level] if node.level else []
            parent = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                path = ROOT / Path(*parent.split("."), alias.name)
                is_module = path.with_suffix(".py").exists() or path.is_dir()
                found.add(f"{parent}.{alias.name}" if is_module else parent)
    return frozenset(found)


def core() -> list[Path]:
    return [file for file in files("pacore_lab") if str(file.relative_to(ROOT)) not in DOORS]


def floor_of(module: str) -> int:
    """Raises StopIteration for a room that is on no floor: put every new one on its own."""
    return next(height for height, rooms in enumerate(FLOORS) if module.split(".")[1] in rooms)


@pytest.mark.parametrize("room", ["strategies", "backends"])
def test_plugins_know_the_seams_and_their_siblings_only(room: str) -> None:
    for file in files(room):
        ours = {name for name in imports(file) if room_of(name) in ROOMS}
        strangers = {name for name in ours if name not in SEAM and room_of(name) != room}
        assert not strangers, f"{file.relative_to(ROOT)} imports {strangers}"


def test_the_core_knows_no_plugin_and_hydra_only_in_config() -> None:
    for file in files("pacore_lab"):
        found = imports(file)
        assert not {n for n in found if room_of(n) in {"strategies", "backends", "experiments", "tests"}}, file
        hydra = {n for n in found if room_of(n) in {"hydra", "omegaconf"}}
        assert not hydra or file.parent.name == "config", f"{file.relative_to(ROOT)} imports {hydra}"


def test_every_arrow_points_down() -> None:
    """A module of the core imports its own room and the floors below, never the doors."""
    for file in core():
        here = module_of(file)
        for name in imports(file):
            if room_of(name) != "pacore_lab":
                continue
            assert name != "pacore_lab", f"{here} imports the package's front door; import the module that it needs"
            same_room = name.split(".")[1] == here.split(".")[1]
            assert same_room or floor_of(name) < floor_of(here), f"{here} imports {name}, which does not lie below it"


def test_no_circle_of_modules() -> None:
    """Rooms may be in order while two modules of one room need each other."""
    graph: dict[str, set[str]] = {}
    for room in ("pacore_lab", "strategies", "backends"):
        for file in files(room):
            below = {name for name in imports(file) if room_of(name) in ROOMS}
            graph[module_of(file)] = below - {module_of(file)}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(f"a circle of imports: {' -> '.join(circle.args[1])}")


def test_one_name_names_one_module() -> None:
    """`compare`, `worker`, `rows`, `answers` and `attention` were three modules each; who searched found the wrong one.

    A benchmark's problems and its judge share the benchmark's name, and the replay backend that of what it replays.
    """
    stems = Counter(
        file.stem
        for room in ("pacore_lab", "strategies", "backends")
        for file in files(room)
        if not file.stem.startswith("__") and file.stem not in {"hle", "multichallenge", "replay"}
    )
    assert not [stem for stem, times in stems.items() if times > 1]


def test_a_stranger_sees_the_core_at_a_glance() -> None:
    shown = [path for path in (ROOT / "pacore_lab").iterdir() if path.name != "__pycache__"]
    assert len(shown) < 20


def test_nothing_imports_experiments_or_tests() -> None:
    for room in ("pacore_lab", "strategies", "backends"):
        for file in files(room):
            assert not {n for n in imports(file) if room_of(n) in {"experiments", "tests"}}, file


def test_importing_a_plugin_room_loads_no_engine() -> None:
    for file in [*files("backends"), *files("strategies"), *files("pacore_lab")]:
        heavy = {"torch", "transformers", "vllm", "sglang"} & {room_of(name) for name in _at_import(file)}
        lazily_imported = file.parent.name == "backends" and file.name.startswith("_")
        assert not heavy or lazily_imported, f"{file.relative_to(ROOT)} imports {heavy} at its top"


def _at_import(file: Path) -> set[str]:
    top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {a.name for n in top if isinstance(n, ast.Import) for a in n.names} | {
        n.module for n in top if isinstance(n, ast.ImportFrom) and n.module
    }


def test_product_files_fit_a_screenful_of_ideas() -> None:
    lines = {file: len(file.read_text().splitlines()) for room in ROOMS[:4] for file in files(room)}
    assert not {str(file.relative_to(ROOT)): n for file, n in lines.items() if n > 300}
