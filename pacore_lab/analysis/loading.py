"""A finished run, read back: `load(folder).table()`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pacore_lab.analysis.summary import Row, summarise
from pacore_lab.errors import ConfigError
from pacore_lab.results.folder import read_run
from pacore_lab.results.grades import lines_of


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run's folder. settings, versions: the contents of the files of these names."""

    path: Path
    settings: dict[str, Any]
    versions: dict[str, Any]

    def lines(self, grades: str | None = None) -> Iterator[dict[str, Any]]:
        """The lines of results.jsonl, one per episode. grades: name of a regrading to use in place of the run's own."""
        return lines_of(self.path, grades)

    def table(self, grades: str | None = None) -> list[dict[str, Any]]:
        """One row per method, baselines first and the strategy last: `analysis.Row` as plain data."""
        return [_plain(row) for row in self._rows(grades)]

    def differences(self, grades: str | None = None) -> list[dict[str, Any]]:
        """The strategy against each of its baselines, paired: `analysis.Difference` as plain data."""
        return [asdict(each) for row in self._rows(grades) for each in row.versus]

    def frame(self, grades: str | None = None) -> Any:
        """`table` as a pandas.DataFrame. Raises ConfigError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ConfigError(
                "frame() needs pandas: pip install pandas; table() gives the same as plain data"
            ) from None
        return pandas.DataFrame(self.table(grades))

    def _rows(self, grades: str | None) -> list[Row]:
        return summarise(self.lines(grades), self.versions["strategy"])


def load(folder: str | Path) -> Loaded:
    """Read a run's folder. Raises ConfigError if it is not a run this lab can read."""
    path = Path(folder)
    settings, versions = read_run(path)
    return Loaded(path=path, settings=settings, versions=versions)


def _plain(row: Row) -> dict[str, Any]:
    values = {key: value for key, value in asdict(row).items() if key not in ("versus", "groups")}
    return values | {f"accuracy {group.name}": group.accuracy for group in row.groups}
