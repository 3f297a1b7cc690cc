"""A store with the sample, and a finished study in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farm.results.catalog import Catalog
from farm.store.base import Store
from farm.study.trials import Study
from tests.study.support import cross, made_up_rows, planned, sample_store


@pytest.fixture
def store() -> Store:
    return sample_store()


@pytest.fixture
def finished(store: Store) -> Iterator[tuple[Catalog, Study]]:
    """A study whose blocks all have made-up rows."""
    catalog = Catalog(store)
    study = catalog.put_study(planned(cross(fast=(1, 40)), store))
    for block in study.blocks:
        assert catalog.put_segment(study, block.index, made_up_rows(study, block.index))
    yield catalog, study
