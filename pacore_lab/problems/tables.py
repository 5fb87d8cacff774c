"""Tables of published data sets: from the hub, pinned to a commit, or from a local copy of the same shape.

The hub's files are fetched by commit and then read like local ones. If the hub or the revision cannot be found,
`datasets.load_dataset` on a hub id would first retry for 23 seconds, and then silently use the latest cached version,
whatever its revision.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacore_lab.errors import DataError
from pacore_lab.problems.rows import KINDS, Document, Part, Row, open_part, reason

_TIMEOUT = 10.0  # seconds to wait for the hub's first answer


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a set is published.

    id: a data set on the hub, or a URL that holds {revision}.
    files: which of its files to read, a glob over their paths. In a local folder, files that match are preferred.
    count: the least number of such files on the hub.
    """

    id: str
    files: str
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """origin: the data that was read: id and commit, or the local path and a digest of its files."""

    name: str
    origin: str
    parts: Sequence[Part]

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        places = ((part, index) for part in self.parts for index in part.indices())
        for number, (part, index) in enumerate(places):
            values = part.read(index, columns)
            yield Row(number=number, where=part.where(index), values=values, part=part, index=index)


def open_table(source: Source, *, needed: Sequence[str], path: str | None, revision: str | None) -> Table:
    """The table of `source` at `revision`, or of its local copy at `path`: a file, or a folder of files.

    needed: columns. Raises DataError, one line: the file or id, what is wrong and how to fix it.
    """
    if path is not None:
        root = Path(path).expanduser()
        files = _files(root, source.files)
        origin = f"{path} (sha256 {_digest(files)} over {len(files)} files)"
        return Table(name=path, origin=origin, parts=[open_part(str(file), file, needed) for file in files])
    assert revision is not None
    if "://" in source.id:
        url = source.id.format(revision=revision)
        return Table(name=url, origin=url, parts=[Document(url, url, needed)])
    folder = _snapshot(source, revision)
    name = f"{source.id}@{folder.name}"
    files = _files(folder, source.files)
    return Table(name=name, origin=name, parts=[open_part(f"{name}/{f.relative_to(folder)}", f, needed) for f in files])


def _snapshot(source: Source, revision: str) -> Path:
    """The folder in the hub's cache with the files of this revision; its name is the commit."""
    from huggingface_hub import HfApi, snapshot_download

    wanted: dict[str, Any] = {
        "repo_id": source.id,
        "repo_type": "dataset",
        "allow_patterns": [source.files, f"*/{source.files}"],
    }
    try:
        # Ask once first: this fails at once without a network, where a download would retry for 23 seconds.
        commit = HfApi().dataset_info(source.id, revision=revision, timeout=_TIMEOUT).sha
    except Exception as error:  # some thirty kinds, from the hub, HTTP and the disk
        with contextlib.suppress(Exception):
            folder = Path(snapshot_download(revision=revision, local_files_only=True, **wanted))
            return _whole(source, folder)
        raise _unreachable(source, revision, error) from None
    try:
        with _quiet():
            return _whole(source, Path(snapshot_download(revision=commit, **wanted)))
    except Exception as error:
        raise _unreachable(source, revision, error) from None


def _whole(source: Source, folder: Path) -> Path:
    """`folder`, if it has all files: an interrupted download leaves fewer in the cache. Raises FileNotFoundError."""
    there = _matching(_data_files(folder), source.files)
    if len(there) < source.count:
        raise FileNotFoundError(f"{len(there)} of {source.count} files in {folder}")
    return folder


def _unreachable(source: Source, revision: str, error: Exception) -> DataError:
    return DataError(
        f"{source.id} at revision {revision} cannot be fetched from the hub ({reason(error)}); "
        f"{_remedy(error)}, or give a local copy: problems.path=FOLDER"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the hub's progress bars in the block; a model that is fetched later shows its own."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()


def _remedy(error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (deeper := chain[-1].__cause__) is not None:
        chain.append(deeper)
    kinds = {kind.__name__ for each in chain for kind in type(each).__mro__}
    if "GatedRepoError" in kinds:
        return "accept its terms on its page there and log in (hf auth login)"
    if "RevisionNotFoundError" in kinds:
        return "set problems.revision to one of its commits"
    return "check the network and HF_ENDPOINT"


def _files(root: Path, pattern: str) -> list[Path]:
    """The data files below `root`, in order of name: those that match the pattern, else all."""
    if root.is_file():
        if root.suffix not in KINDS:
            raise DataError(f"{root}: not a {', '.join(KINDS)} file; set problems.path to one, or to a folder")
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder; set problems.path to a copy of the data set")
    paths = _data_files(root)
    chosen = _matching(paths, pattern) or list(paths.values())
    if not chosen:
        raise DataError(f"{root}: holds no {', '.join(KINDS)} file; set problems.path to a copy of the data set")
    if len(kinds := sorted({file.suffix for file in chosen})) > 1:
        raise DataError(f"{root}: holds {' and '.join(kinds)} files; set problems.path to the one to read")
    return chosen


def _data_files(root: Path) -> dict[str, Path]:
    """The data files by path below `root`, in order, without hidden ones."""
    paths = {f"/{file.relative_to(root).as_posix()}": file for file in sorted(root.rglob("*")) if file.suffix in KINDS}
    return {name: file for name, file in paths.items() if "/." not in name and file.is_file()}


def _matching(paths: dict[str, Path], pattern: str) -> list[Path]:
    return [file for name, file in paths.items() if fnmatch.fnmatchcase(name, f"*/{pattern}")]


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; set problems.path to a readable copy") from None
    return total.hexdigest()[:16]
