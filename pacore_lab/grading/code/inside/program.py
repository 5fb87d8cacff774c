"""Runs one program on one test, in a process that `zygote.py` has forked and confined for it. Never returns.

There are three ways to run it. "script" runs it as Python runs a file, with a real stdin and stdout. "wrapped" runs it
inside a function with stand-ins for stdin and stdout, as LiveCodeBench's runner does
(lcb_runner/evaluation/testing_util.py). "call" and "strict call" call one of its functions and send the result as JSON.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import importlib
import io
import json
import os
import shutil  # noqa: F401 - there, for `_ABSENT`
import subprocess  # noqa: F401
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

# LiveCodeBench puts the names of these modules before every program, and the modules themselves except the last two.
_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)
PRELUDE = "\n".join(
    [f"from {name} import *" for name in (*_MODULES.split(), "builtins", "typing")]
    + [f"import {name}" for name in _MODULES.split()]
    + ["sys.setrecursionlimit(50000)"]
)
_AFTER_PRELUDE = "import sys\n"
"""Replaces the prelude in the source: a `from __future__` import after it is a SyntaxError, as after the prelude."""
_ABSENT = {
    "os": "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames truncate "
    "replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir",
    "shutil": "rmtree move chown",
    "subprocess": "Popen",
}
RESULT, NOTE = 1, 3
"""Descriptors: the output to compare (stdout, or a call's result), and a note on how the program ended."""


def warm() -> types.ModuleType:
    """A module with the prelude's names. Also triggers what Python builds on first use; a fork inherits both."""
    sys.set_int_max_str_digits(50_000)  # as LiveCodeBench: some answers exceed Python's 4,300 digits
    module = types.ModuleType("__main__")
    exec(PRELUDE, module.__dict__)
    sample = "import re\nclass A:\n  def f(self, n): return [str(i) for i in range(n)]\nA().f(3)"
    exec(compile(_as_function(sample), "<sample>", "exec"), {})
    exec(compile(sample, "<sample>", "exec"), {"__name__": "sample"})
    json.loads(json.dumps([1, 0.5, "x", {}]))
    for mode in ("r", "w"):
        open(os.devnull, mode, encoding="utf-8").close()
    return module


def run(job: dict[str, Any], prelude: types.ModuleType) -> NoReturn:
    """Execute the program and end this process, leaving on NOTE how the program ended.

    job: "mode", "code", "input", and "function" for a call. prelude: the module that `warm` returned.
    """
    leave, tell, status = os._exit, os.write, 1  # taken before a program can replace them
    try:
        tell(NOTE, b"+")  # confined: failures are the program's own from here on, and it cannot take this back
        note = "end"
        try:
            status = _MODES[job["mode"]](job, prelude)
        except MemoryError:
            note = "MemoryError"
        except BaseException as error:  # an exception ends only this program
            note = type(error).__name__
        tell(NOTE, note.encode("ascii", "replace")[:80])
    finally:
        leave(status & 0xFF)


def _named(module: types.ModuleType, name: str, **more: Any) -> dict[str, Any]:
    """The program's namespace, registered as module `name`: dataclasses and pickle look it up there.

    It is the prelude's own namespace, not a copy. This process was forked for this program, and copying 700 references
    would cost more than the rest of a small test, because each copy dirties a page.
    """
    sys.modules[name] = module
    module.__dict__.update(more, __name__=name)
    return module.__dict__


def _script(job: dict[str, Any], prelude: types.ModuleType) -> int:
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding="utf-8")
    names = _named(prelude, "__main__", stdin=sys.stdin, stdout=sys.stdout)
    status = 0
    try:
        exec(compile(job["code"], "<program>", "exec"), names)
    except SystemExit as end:
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # wait for threads, as the interpreter does at exit
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


def _wrapped(job: dict[str, Any], prelude: types.ModuleType) -> int:
    """Run the program in LiveCodeBench's way, its limits included.

    The statements become the body of a function, so `global` finds no module variable. `from sys import stdin` runs
    before the stand-in is in place: the program gets `_original`, which can be read but neither iterated nor read as
    bytes. Output through `from sys import stdout` is lost. The stand-in has no iterator, and its buffer knows only its
    first line. sys.exit counts as a normal end.
    """
    names = _guarded(prelude, job["code"])
    sys.stdin, sys.stdout = _original(job["input"]), open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    names.update(stdin=sys.stdin, stdout=sys.stdout)  # the prelude's `from sys import *`
    exec(compile(_as_function(job["code"]), "<program>", "exec"), names)
    captured = io.StringIO()
    captured.close = lambda *_: None  # type: ignore[method-assign]
    sys.stdin, sys.stdout = _Stdin(job["input"]), captured
    with contextlib.suppress(SystemExit):
        names["wrapped_function"]()
    _write(captured.getvalue())
    return 0


def _guarded(prelude: types.ModuleType, code: str) -> dict[str, Any]:
    """The namespace that LiveCodeBench's guard leaves: no `quit`, no `help`, five modules that cannot be imported, and
    None in place of functions that change files and processes."""
    if any(name in code for name in ("numpy", "scipy", "pandas", "sklearn")):  # the runner loads numpy before the guard
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy")
    for module, absent in _ABSENT.items():
        sys.modules[module].__dict__.update(dict.fromkeys(absent.split()))
    sys.modules.update(dict.fromkeys(("ipdb", "joblib", "resource", "psutil", "tkinter")))  # type: ignore[arg-type]
    return _named(prelude, "tmp_sol", quit=None, help=None)


def _as_function(code: str) -> ast.Module:
    """`wrapped_function` with the program's statements, its imports first and a final `if __name__ ...` unpacked."""
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'":
        tree.body[-1:] = last.body
    imports = ast.parse(_AFTER_PRELUDE).body
    imports += [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    function = ast.parse("def wrapped_function(): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = body or function.body
    return ast.Module(body=[*imports, function], type_ignores=[])


def _original(text: str) -> io.TextIOWrapper:
    """The empty stdin of LiveCodeBench's runner, with its three patched functions. `readline` gives lines without
    newlines and ends in StopIteration."""
    lines: Iterator[str] = iter(text.split("\n"))
    file = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - until the process ends
    file.__dict__.update(read=lambda *_: text, readline=lambda *_: next(lines), readlines=lambda *_: text.split("\n"))
    return file


class _Stdin:
    """LiveCodeBench's stand-in for stdin. It deliberately has no `__iter__`."""

    def __init__(self, text: str) -> None:
        self._file = io.StringIO(text)
        self.read = lambda *_: text
        self.readline = self._file.readline
        self.readlines = lambda *_: text.split("\n")
        self.buffer = _Buffer(text.encode("utf-8", "replace"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Buffer:
    def __init__(self, data: bytes) -> None:
        self.read = lambda *_: data
        self.readline = lambda *_: data.split(b"\n")[0] + b"\n"


def _call(job: dict[str, Any], prelude: types.ModuleType, *, strict: bool = False) -> int:
    """Calls `Solution().function(*arguments)`, or a function of the module; a tuple counts as a list.

    strict: a tuple counts as a list only at the top, as in LiveCodeBench; inside a list it equals no list.
    """
    names = _guarded(prelude, job["code"]) if strict else _named(prelude, "tmp_sol")
    result = os.dup(RESULT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), RESULT)  # the program's own printing is discarded
    exec(compile(_AFTER_PRELUDE * strict + job["code"], "<program>", "exec"), names)
    name = job["function"]
    function = getattr(names["Solution"](), name) if "class Solution" in job["code"] else names[name]
    value = function(*(json.loads(line) for line in job["input"].split("\n")))
    if isinstance(value, tuple):
        value = list(value)
    if strict and not _is_json(value):
        value = {"": "not JSON"}
    text = json.dumps(value, default=_plain)
    os.dup2(result, RESULT)
    _write(text)
    return 0


def _is_json(value: Any) -> bool:
    """Whether JSON keeps the value distinct: no tuple inside it, and only strings as keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return not isinstance(value, tuple) and (not isinstance(value, list) or all(map(_is_json, value)))


def _plain(value: Any) -> Any:
    """A numpy scalar, Decimal or Fraction as a JSON number, if that is the same number. Raises TypeError otherwise."""
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "as_integer_ratio"):
        above, below = value.as_integer_ratio()
        number = above if below == 1 else above / below
        if number == value:
            return number
    raise TypeError("the result is not JSON")


def _write(text: str) -> None:
    with open(RESULT, "w", encoding="utf-8", errors="replace", closefd=False) as out:
        out.write(text)


_MODES: dict[str, Callable[[dict[str, Any], types.ModuleType], int]] = {
    "script": _script,
    "wrapped": _wrapped,
    "call": _call,
    "strict call": lambda job, prelude: _call(job, prelude, strict=True),
}
