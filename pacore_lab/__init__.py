"""PaCoRe Lab: test-time compute for language models, one swappable part at a time (PaCoRe, arXiv 2601.05593).

Everything public in the core can be imported from here. Strategies and backends live in packages of those names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pacore_lab.errors import (
    BackendError,
    BudgetSpent,
    ConfigError,
    DataError,
    EngineDead,
    LabError,
    NeverSampled,
    RequestError,
    StoreError,
    TransientError,
    Unsupported,
    require_count,
    require_flag,
    require_name,
    require_names,
    require_number,
    require_part,
    require_share,
    within,
)
from pacore_lab.interfaces import (
    AnyCompaction,
    Arrivals,
    AskingCompaction,
    Backend,
    Capabilities,
    Chunk,
    Compaction,
    Grader,
    OnChunk,
    Order,
    Plan,
    ProblemSet,
    PromptBuilder,
    Request,
    Sampler,
    Schedule,
    StopRule,
    Strategy,
    Views,
    needs_of,
)
from pacore_lab.types import (
    WINDOW,
    ChatMessage,
    Completion,
    Grade,
    Message,
    Model,
    Problem,
    Prompt,
    Round,
    SamplingParams,
    Solution,
    Trajectory,
    conclusion,
    mean_and_windows,
    text_of,
)
from pacore_lab.votes import winners

if TYPE_CHECKING:
    from pacore_lab.analysis.loading import Loaded, load
    from pacore_lab.config.calling import composed, run
    from pacore_lab.running.parts import Run
    from pacore_lab.running.run import execute
    from pacore_lab.running.solve import opened, solve

__version__ = "0.1.0"

_LATER = {
    "solve": "pacore_lab.running.solve",
    "opened": "pacore_lab.running.solve",
    "run": "pacore_lab.config.calling",
    "composed": "pacore_lab.config.calling",
    "load": "pacore_lab.analysis.loading",
    "Loaded": "pacore_lab.analysis.loading",
    "Run": "pacore_lab.running.parts",
    "execute": "pacore_lab.running.run",
}
"""Imported on first use, so that code that needs only the types does not wait for numpy and Hydra."""

__all__ = [
    "WINDOW",
    "AnyCompaction",
    "Arrivals",
    "AskingCompaction",
    "Backend",
    "BackendError",
    "BudgetSpent",
    "Capabilities",
    "ChatMessage",
    "Chunk",
    "Compaction",
    "Completion",
    "ConfigError",
    "DataError",
    "EngineDead",
    "Grade",
    "Grader",
    "LabError",
    "Loaded",
    "Message",
    "Model",
    "NeverSampled",
    "OnChunk",
    "Order",
    "Plan",
    "Problem",
    "ProblemSet",
    "Prompt",
    "PromptBuilder",
    "Request",
    "RequestError",
    "Round",
    "Run",
    "Sampler",
    "SamplingParams",
    "Schedule",
    "Solution",
    "StopRule",
    "StoreError",
    "Strategy",
    "Trajectory",
    "TransientError",
    "Unsupported",
    "Views",
    "composed",
    "conclusion",
    "execute",
    "load",
    "mean_and_windows",
    "needs_of",
    "opened",
    "require_count",
    "require_flag",
    "require_name",
    "require_names",
    "require_number",
    "require_part",
    "require_share",
    "run",
    "solve",
    "text_of",
    "winners",
    "within",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
