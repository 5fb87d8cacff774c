"""The arrows between the rooms go one way, and the rooms stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pacore_lab", "strategies", "backends", "experiments", "tests")
SEAM = {"pacore_lab.types", "pacore_lab.interfaces", "pacore_lab.errors", "pacore_lab.votes"}
CORE_ORDER = [
    "errors", "types", "interfaces", "names", "store", "dispatch", "arrivals", "claims", "sampler", "record", "run",
    "episodes", "engine", "config",
]  # fmt: skip


def imports(file: Path) -> set[str]:
    """Modules a file imports, also inside functions; `from a import b` counts as a.b where b is a module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                path = ROOT / Path(*node.module.split("."), alias.name)
                is_module = path.with_suffix(".py").exists() or path.is_dir()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[0]


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
        assert not hydra or file.name == "config.py", f"{file.relative_to(ROOT)} imports {hydra}"


def test_the_core_is_layered() -> None:
    for position, name in enumerate(CORE_ORDER):
        upper = {f"pacore_lab.{later}" for later in CORE_ORDER[position:]}
        assert not imports(ROOT / "pacore_lab" / f"{name}.py") & upper, f"{name} imports what stands on it"


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
