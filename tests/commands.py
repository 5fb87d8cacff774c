"""Commands called in this process, as modules with a `main`."""

from __future__ import annotations

from typing import Any

import pytest


def call(monkeypatch: pytest.MonkeyPatch, module: Any, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    module.main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: Any, *words: object) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, module, *words)
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    return err
