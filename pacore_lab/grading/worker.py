"""The child process that reads model text as mathematics. Run as a script by `pool.py`; imports nothing of the lab.

One JSON object per line in, one out: {"gold", "answer", "mutual"} -> {"equal": bool} or {"error": text}; the first line
out, {"equal": false} or an error, says whether math-verify could be loaded. math-verify's own timeouts rest on SIGALRM
and do not stop a long C call, so they are off: whoever asked kills this process when its time is up.
"""

from __future__ import annotations

import cmath
import functools
import json
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
MAX_PARSED = 2048


def confine(memory_mb: int, parent: int) -> None:
    """Die with the parent, ignore its Ctrl-C, and get a MemoryError beyond `memory_mb` of address space (POSIX)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:  # it died before prctl
        sys.exit(0)


class OutOfMemory(BaseException):
    """A MemoryError that `except Exception` does not catch."""


def let_memory_errors_through() -> None:
    """math-verify turns every `except Exception` into "not equal". Running out of memory is not an answer.

    So its parser raises OutOfMemory instead, and its grader sees an `Exception` that has no MemoryError in it.
    """
    import math_verify.grader
    import math_verify.parser

    latex2sympy = math_verify.parser.latex2sympy

    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return latex2sympy(*arguments, **keywords)
        except MemoryError as error:
            raise OutOfMemory from error

    math_verify.parser.latex2sympy = guarded
    math_verify.grader.Exception = tuple(kind for kind in Exception.__subclasses__() if kind is not MemoryError)


@functools.lru_cache(maxsize=MAX_PARSED)
def parsed(answer: str) -> list[Any]:
    """math-verify's reading of an answer, [] where it has none. Only as LaTeX: the other readings guess, or `eval`."""
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    result: list[Any] = parse(f"\\boxed{{{answer}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
    return result


@functools.lru_cache(maxsize=MAX_PARSED)
def value(answer: str) -> complex | None:
    """The numerical value of an answer that is one number, else None."""
    expressions = parsed(answer)
    if len(expressions) != 1 or not getattr(expressions[0], "is_number", False):
        return None
    try:
        number = complex(expressions[0].evalf(15))
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if cmath.isfinite(number) else None


def far_apart(first: complex, second: complex) -> bool:
    """Beyond any rounding math-verify forgives (six places): answers without its slow symbolic comparison."""
    return abs(first - second) > 1e-5 * max(1.0, abs(first), abs(second))


def equal(gold: str, answer: str, mutual: bool) -> bool:
    """math-verify's verdict; it is not symmetric, so `mutual` asks it both ways round."""
    from math_verify import verify

    first, second = value(gold), value(answer)
    if first is not None and second is not None and far_apart(first, second):
        return False
    left, right = parsed(gold), parsed(answer)
    return bool(verify(left, right, timeout_seconds=None) and (not mutual or verify(right, left, timeout_seconds=None)))


def reply(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"equal": equal(request["gold"], request["answer"], request["mutual"])}
    except (MemoryError, OutOfMemory):
        return {"error": "grader ran out of memory"}
    except Exception as error:
        return {"error": f"grader failed: {type(error).__name__}"}


def main() -> None:
    memory_mb, parent = (int(argument) for argument in sys.argv[1:3])
    # Whatever a library prints goes nowhere; the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        confine(memory_mb, parent)
        let_memory_errors_through()
        first = reply({"gold": "x", "answer": "\\sqrt{2}", "mutual": True})  # builds the parser's tables
    except Exception as error:
        first = {"error": f"grader cannot start: {error!r}"}
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
