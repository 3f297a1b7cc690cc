"""Starts numba quickly in a process that is the farm's own: the console command, a worker.

numba imports ``scipy.linalg`` when its first kernel is loaded, only to see whether there is a BLAS. Where scipy is
installed (it is no dependency of the farm) that costs more than everything else at start, and no kernel of the farm may
call BLAS (its bits depend on the core). So for that moment the module cannot be found. A library must not do this to
a process that belongs to somebody else, hence a function, and hence only the farm's own processes call it.
"""

import importlib
import sys

_BLAS = "scipy.linalg.cython_blas"


def start_numba() -> None:
    """Load numba and what its CPU target needs, without scipy's BLAS; no effect when scipy is loaded already."""
    hide = _BLAS not in sys.modules
    if hide:
        sys.modules[_BLAS] = None  # type: ignore[assignment]
    try:
        from numba.core.registry import cpu_target

        cpu_target.target_context.refresh()
    finally:
        if hide:
            del sys.modules[_BLAS]


def load_kernels() -> None:
    """Load every kernel; those that are not on disk yet are compiled, which takes a minute once."""
    start_numba()
    for module in ("logic", "merge", "reduce", "rolling", "step", "totals", "transcend"):
        importlib.import_module(f"farm.kernels.{module}")


if __name__ == "__main__":
    load_kernels()
