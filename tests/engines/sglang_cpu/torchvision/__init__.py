"""Lets SGLang's image processors be imported where no CPU build of torchvision is to be had; text models never call it.

Importing this package makes its submodules; each has every name, and all are the same empty class.
"""

import enum
import sys
import types

__version__ = "0"


class InterpolationMode(enum.Enum):
    NEAREST, BILINEAR, BICUBIC, LANCZOS = "nearest", "bilinear", "bicubic", "lanczos"
    NEAREST_EXACT, BOX, HAMMING = "nearest-exact", "box", "hamming"


class _Empty(types.ModuleType):
    InterpolationMode = InterpolationMode
    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


for _name in ("io", "transforms", "transforms.functional", "transforms.v2", "transforms.v2.functional"):
    _module = sys.modules[f"{__name__}.{_name}"] = _Empty(f"{__name__}.{_name}")
    _parent, _, _last = f"{__name__}.{_name}".rpartition(".")
    setattr(sys.modules[_parent], _last, _module)
