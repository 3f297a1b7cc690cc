"""The two versions that are part of every result's identity.

Bump ``SEMANTICS_VERSION`` by hand whenever the meaning of a spec changes on purpose; golden fingerprints fail on any
change that was not meant. ``NUMERICS_PROFILE`` names the arithmetic: strict float64 without contraction, only
+ - x / sqrt, rint, comparisons and integers, sums in a written order.
"""

from __future__ import annotations

SEMANTICS_VERSION = "2"
NUMERICS_PROFILE = "strict-f64-1"
