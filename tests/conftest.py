"""What tests share: one thread, randomness that starts from the same place, made-up items."""

from __future__ import annotations

import pytest
import torch

from made_up_items import add_item, two_items  # noqa: F401

torch.set_num_threads(1)  # the nets are tiny, and sums do not depend on the machine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that start processes take turns: two torchruns at once may wait for each other."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("distributed"):
                item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of randomness of the test's own."""
    return torch.Generator().manual_seed(0)
