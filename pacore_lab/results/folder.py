"""The run folder: settings and versions, `results.jsonl` as it grows, `summary.json` at the end."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pacore_lab.errors import ConfigError
from pacore_lab.results.disk import read_lines, write_json
from pacore_lab.results.line import truth_of
from pacore_lab.sampling.names import digest
from pacore_lab.types import Problem

_FREE = ("grader.workers", "grader.cache", "grader.judge.backend.", "grader.judge.store", "grader.judge.concurrency")
"""Settings that may change between resumptions: the grader's version covers their effect on grades."""
_VERSIONS = ("strategy", "backend", "grader")
_PACKAGES = ("pacore-lab", "torch", "transformers", "vllm", "sglang", "hydra-core", "math-verify", "numpy", "scipy")


class RunFolder:
    """One run's output. `check` only reads, to find an earlier run's finished episodes; `open` creates and locks."""

    def __init__(self, path: Path, settings: Mapping[str, Any], problems: Sequence[Problem]) -> None:
        self.path = path
        self.settings = dict(settings)
        self.versions: dict[str, Any] = {}
        self.done: set[tuple[str, int]] = set()
        self._asked = {problem.id: digest([problem.messages, truth_of(problem)]) for problem in problems}
        self._lock: IO[str] | None = None
        self._results: IO[str] | None = None

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    def check(self) -> None:
        """Raises ConfigError if the folder is not writable, or holds other settings or another program's results."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out={self.path} is a file; name a folder")
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"out={self.path} cannot be written (see {there}); name another folder")
        file = self.path / "settings.json"
        if not file.exists():
            if self.results.exists():
                raise ConfigError(f"out={self.path} holds a results.jsonl of another program; name another folder")
            return
        old, new = _flat(json.loads(file.read_text())), _flat(self.settings)
        keys = sorted(key for key in {*old, *new} if not key.startswith(_FREE))
        differing = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]
        if differing:
            shown = "; ".join(differing[:3])[:400]
            raise ConfigError(f"out={self.path} holds a run with other settings ({shown}); name another out=FOLDER")
        self.versions = json.loads((self.path / "versions.json").read_text())
        self.done = {(line["request_id"], line["repeat"]) for line in self._finished()}

    def open(self, versions: Mapping[str, Any]) -> None:
        """Raises ConfigError as `check` does, and if another process writes there, or for other weights or graders."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise ConfigError(f"out={self.path} cannot be written ({error.strerror}); name another folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            raise ConfigError(f"out={self.path} is being written by {holder}; wait for it or name another") from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]})")
        self._lock.flush()
        self.check()  # again: another process may have been here since
        before, now = (_fingerprints(each["backend"]) for each in (self.versions or versions, versions))
        if self.done and before != now:
            changed = f"{before}, now {now}"
            raise ConfigError(
                f"out={self.path} holds results of another model or engine (fingerprint {changed}); name another out="
            )
        if self.done and self.versions.get("grader") != versions["grader"]:
            changed = f"{self.versions.get('grader')}, now {versions['grader']}"
            raise ConfigError(f"out={self.path} holds grades of another grader ({changed}); name another out=")
        self.versions = dict(versions)
        write_json(self.path / "versions.json", versions)
        write_json(self.path / "settings.json", self.settings)
        if self.results.exists():
            kept = self.results.with_suffix(".tmp")
            with kept.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in self._finished())
            os.replace(kept, self.results)
        self._results = self.results.open("a", encoding="utf-8")

    def append(self, line: Mapping[str, Any]) -> None:
        assert self._results is not None
        self._results.write(json.dumps(line) + "\n")
        self._results.flush()
        self.done.add((line["request_id"], line["repeat"]))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines written so far, except a line that a kill cut short."""
        return read_lines(self.results)

    def close(self) -> None:
        if self._results is not None:
            self._results.close()
        if self._lock is not None:
            self._lock.close()

    def _finished(self) -> Iterator[dict[str, Any]]:
        """Lines to keep: neither failed nor cut short, and of a problem that has not changed."""
        if not self.results.exists():
            return
        for line in self.lines():
            asked = self._asked.get(line["request_id"])
            if line["error"] is None and asked == digest([line["problem"], line["ground_truth"]]):
                yield line


def read_run(path: Path, *needed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and versions of a run's folder. Raises ConfigError if it holds no run that this lab can read.

    needed: the settings keys that the caller reads.
    """
    found = []
    for name in ("settings.json", "versions.json"):
        try:
            found.append(json.loads((path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not JSON"
            raise ConfigError(f"{path} holds no run of this lab ({name}: {reason}); name a run's folder") from None
    if not (path / "results.jsonl").exists():
        raise ConfigError(f"{path} holds no results.jsonl yet; let the run finish an episode")
    for name, have, keys in zip(("settings", "versions"), found, (needed, _VERSIONS), strict=True):
        if lacking := [key for key in keys if not isinstance(have, dict) or key not in have]:
            raise ConfigError(
                f"{path}/{name}.json lacks {lacking[0]!r}: an older version of this lab wrote it, or it was edited by "
                "hand; run it again with another out=FOLDER"
            )
    settings, versions = found
    return settings, versions


def _fingerprints(backend: Mapping[str, Any]) -> str:
    roles = {name: role["fingerprint"] for name, role in backend.get("roles", {}).items()}
    return ", ".join([str(backend["fingerprint"]), *(f"{name}: {roles[name]}" for name in sorted(roles))])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def provenance(strategy: str, problems: str | None, backend: Mapping[str, Any], grader: str) -> dict[str, Any]:
    """What a reader needs to repeat the run, besides its settings. problems: their `origin`, if they have one."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    root = Path(__file__).resolve().parent
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": git.stdout.strip() or None,
        "packages": installed,
        "strategy": strategy,
        "problems": problems,
        "backend": dict(backend),
        "grader": grader,
    }
