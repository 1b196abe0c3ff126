"""Lets a torchvision wheel built for CUDA be imported beside a CPU build of torch. Inert where the wheels match.

Why: PyPI's torchvision for Linux links the CUDA libraries, so its compiled extension cannot be loaded beside a CPU
torch. torchvision tolerates that, except that it registers fake kernels for two operators which only the extension
defines ("operator torchvision::nms does not exist"). Qwen3-VL needs torchvision's Python transforms and neither
operator, so *defining* the two, without kernels, is enough; calling one still fails, as it should.

How: `serving.engine.install` copies this file into the engine's site-packages and writes a `.pth` line that calls
`arm()` when an interpreter starts, which reaches every process that vLLM spawns. `arm()` costs microseconds: torch is
imported only when torchvision is, and nothing is defined when the extension loads.

Standard library only, and no import that an interpreter has not made anyway at its start.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False  # typing's constant, without the cost of importing typing in every process
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Signatures: torchvision/csrc/ops/nms.cpp and quantized/cpu/qnms_kernel.cpp, release 0.28.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_kept: list[object] = []  # a torch.library.Library takes its definitions away when it is collected


def define_missing_ops(package_dir: str) -> tuple[str, ...]:
    """Define the two operators unless torchvision's own extension in `package_dir` loads; return what was defined."""
    import torch  # noqa: PLC0415  # only here: most interpreters of the environment never need it

    if _extension_loads(torch.ops.load_library, package_dir):
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _kept.append(library)
    return SCHEMAS


def _extension_loads(load_library: object, package_dir: str) -> bool:
    """Do what torchvision/extension.py does next, and say whether it will work."""
    from pathlib import Path  # noqa: PLC0415  # not at interpreter start

    assert callable(load_library)  # noqa: S101  # torch has no types in the light environment
    for extension in sorted(Path(package_dir).glob("_C*.so")):
        try:
            load_library(str(extension))
        except OSError:
            return False
        return True
    return False


class _Loader(SourceFileLoader):
    """torchvision's loader, with the operators in place just before the package's own code runs."""

    def exec_module(self, module: ModuleType) -> None:
        """Define, then execute."""
        define_missing_ops(self.path.rpartition("/")[0])
        super().exec_module(module)


class _Finder:
    """Answers for the top-level name `torchvision` only, and only when it is an ordinary package on sys.path."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return torchvision's spec with the loader above; None leaves everything else to the other finders."""
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def arm() -> None:
    """Put the finder first. Called by the `.pth` line at interpreter start; calling it twice changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
