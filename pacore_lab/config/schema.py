"""The root keys of the configuration, and where Hydra finds its groups."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, OmegaConf

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Config:
    """The root keys; `conf/config.yaml` says what each one is."""

    strategy: Any = MISSING
    backend: Any = MISSING
    model: Any = MISSING
    problems: Any = MISSING
    grader: Any = MISSING
    seed: int = 0
    repeats: int = 1
    limit: int | None = None
    concurrency: int = 256
    pool: int | None = None
    roles: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    finish_aborted: bool = False
    out: str | None = None
    store: str = "outputs/store.sqlite"


KEYS = [field.name for field in fields(Config)]


class Extensions(SearchPathPlugin):
    """Installed packages add their `conf/` folder by an entry point in the group `pacore_lab` (CONTRIBUTING.md)."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for point in entry_points(group="pacore_lab"):
            search_path.append(provider=point.name, path=f"pkg://{point.value}.conf")


Plugins.instance().register(Extensions)
ConfigStore.instance().store(name="schema", node=Config)


def digest_of(path: str | None) -> str | None:
    """The beginning of a file's SHA-256, or None for a file that cannot be read: its reader says so."""
    try:
        return path and hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError:
        return None


OmegaConf.register_new_resolver("repo", lambda path: str(ROOT / path), replace=True)
OmegaConf.register_new_resolver("digest", digest_of, replace=True)

_COMPOSING = threading.Lock()


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, ready to compose from `conf/`: also within another use of Hydra, which finds its own state again."""
    with _COMPOSING:
        before = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().hydra = before  # of the instance there is now: Hydra has put another in place
