"""What tests share: one thread, randomness that starts from the same place, made-up items."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from made_up_items import add_item, two_items  # noqa: F401

torch.set_num_threads(1)  # the nets are tiny, and sums do not depend on the machine


# For devices that are not in use yet, torch.manual_seed notes the whole stack, thousands of times.
SEED = torch.manual_seed if torch.cuda.device_count() else torch.default_generator.manual_seed

# Slow as a whole, and importing frameworks that take longer to import than most tests to run.
SLOW_AS_A_WHOLE = ("integrations", "test_transformers.py")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, do not even import these."""
    left_out = config.option.markexpr == "not slow"
    return True if left_out and collection_path.name in SLOW_AS_A_WHOLE else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that start processes take turns: two torchruns at once may wait for each other."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("distributed"):
                item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    SEED(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of randomness of the test's own."""
    return torch.Generator().manual_seed(0)
