"""What Ray loads in each worker process as it starts, before it knows what it is for: the kernels, and the worker.

A module of its own, because it changes the process it is loaded into (``farm.kernels.startup``).
"""

from farm.kernels.startup import load_kernels

load_kernels()

import cluster.worker  # noqa: E402, F401  after numba, which it would load in full
