"""The decorators of all kernels: what Python calls is a ``kernel``, what kernels call is a ``helper``.

Rules of the room. A ``kernel`` names its signatures, and has no others: a call with other types is a TypeError, never
a second compilation. Nothing is compiled when a module is imported; the first call of a kernel, from Python or from a
kernel that is being compiled, takes its code from the cache (``cache.py``), which belongs to the sources of the whole
room: kernels and helpers may stand in any file of it. A ``helper`` has no signature and no code of its own in the
cache: it is compiled into the kernels that call it, for the types they give it.

All are strict: no fastmath, division as in numpy, the GIL released.
"""

import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from numba import config, njit
from numba.core import sigutils
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.typing.templates import Signature

from farm.kernels import cache

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy", "boundscheck": None}

KERNELS: dict[str, "Kernel"] = {}
"""Every kernel of the modules that are loaded, by module and name."""


def helper(function: F) -> F:
    """Decorate a function that kernels call."""
    return cast(F, njit(nogil=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Decorate a helper of a few lines: it becomes part of its caller before anything is optimised."""
    return cast(F, njit(nogil=True, error_model="numpy", forceinline=True)(function))


class Kernel(CPUDispatcher):
    """A function whose declared signatures are loaded, all of them, when it is first needed."""

    _can_compile: bool

    def __init__(self, function: Callable[..., Any], signatures: tuple[Any, ...]) -> None:
        super().__init__(function, targetoptions=dict(_OPTIONS))
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.is_stored = function.__module__.startswith(f"{__package__}.")
        normal = map(sigutils.normalize_signature, signatures)
        self.declared = tuple(Signature(result, arguments, None) for arguments, result in normal)  # type: ignore[no-untyped-call]
        if self.is_stored:
            self._cache = Stored(self)

    def load(self) -> None:
        """Make the kernel ready to be called: from the cache, or compiled if it is not of this room."""
        if self._can_compile:
            # numba's own lock, held by whoever compiles: with a second one two threads could wait for each other.
            with global_compiler_lock:
                if self._can_compile:
                    for signature in self.declared:
                        self.compile(signature)
                    self.disable_compile()

    def file(self, signature: Signature) -> str:
        """Return the name of the file in the cache that belongs to one of the signatures."""
        return f"{self.name}.{self.declared.index(signature)}"

    def compiled(self) -> Iterator[tuple[str, Any]]:
        """Yield the file and what is to be pickled into it, signature by signature."""
        self.load()
        for signature in self.declared:
            result: Any = self.overloads[signature.args]
            if result.lifted or result.library.has_dynamic_globals:
                raise TypeError(f"{self.name} refers to an address of this process or to a large global array")
            yield self.file(signature), result._reduce()

    def _compile_for_args(self, *arguments: Any, **named: Any) -> Any:
        """numba's hook for a call that finds no code. What is returned is called in its place."""
        self.load()
        return self

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """numba's hook for a call in a function that is being compiled."""
        self.load()
        return super().get_call_template(args, kws)


class Stored(_Cache):
    """numba's view of the cache: it reads, and writes nothing."""

    def __init__(self, owner: Kernel) -> None:
        self._owner = owner

    def load_overload(self, sig: Signature, target_context: Any) -> CompileResult | None:
        code = cache.take(self._owner.file(sig))
        if code is None:
            return None
        target_context.refresh()
        rebuild: Any = CompileResult._rebuild
        return cast(CompileResult, rebuild(target_context, *pickle.loads(code)))

    def save_overload(self, sig: Signature, data: CompileResult) -> None:
        pass

    @property
    def cache_path(self) -> None:
        return None

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass


def kernel(*signatures: Any) -> Callable[[F], F]:
    """Decorate a function that Python calls; ``signatures`` are numba's, such as ``int64(float64[::1])``."""

    def decorate(function: F) -> F:
        if config.DISABLE_JIT:  # type: ignore[attr-defined]
            return function
        made = Kernel(function, signatures)
        KERNELS[made.name] = made
        return cast(F, made)

    return decorate
