"""How much the tests try: all there is, or with ``FARM_TESTS=quick`` (``make quick``) what a minute holds.

The quick tier leaves out what is marked ``slow``, ``ray`` or ``server``, and tries a part of the examples and seeds of
the rest, so that every room is still touched.
"""

from __future__ import annotations

import os

IS_QUICK = {"": False, "all": False, "quick": True}[os.environ.get("FARM_TESTS", "")]


def effort(count: int) -> int:
    """Return how many of ``count`` examples or seeds are tried: all of them; in the quick tier a tenth, at least 3."""
    return max(3, count // 10) if IS_QUICK else count
