"""Starts numba quickly in a process that is the farm's own: the console command, a worker.

numba looks for three packages while it loads: scipy, to see whether there is a BLAS; cffi, for arguments that no kernel
here has; and yaml, for a configuration file. None is a dependency of the farm, no kernel of the farm may call BLAS (its
bits depend on the core), and where they are installed they cost as much as numba itself. So for that moment they cannot
be found; and the garbage collector, which would go over every new module again and again, waits, and is rarer after. A
library must not do this to a process that belongs to somebody else, hence a function, and hence only the farm's own
processes call it.
"""

import gc
import sys

OBJECTS_PER_COLLECTION = 50_000
_NOT_WANTED = ("scipy", "cffi", "yaml")


def start_numba() -> None:
    """Load numba and what its CPU target needs, and nothing that it only looks for."""
    hidden = [name for name in _NOT_WANTED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        from numba.core.registry import cpu_target

        cpu_target.target_context.refresh()
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        gc.set_threshold(OBJECTS_PER_COLLECTION, 20, 50)
        gc.enable()


def load_kernels() -> None:
    """Load every kernel. Where they are not on disk yet they are compiled, once."""
    start_numba()
    from farm.kernels.compile import import_kernels

    for kernel in import_kernels().values():
        kernel.load()


if __name__ == "__main__":
    from farm.values.errors import FarmError

    try:
        load_kernels()
    except FarmError as error:
        sys.exit(f"error: {error}")
