"""The examples in the docstrings of the doors, which only slow tests import."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the frameworks, about themselves
]


@pytest.mark.parametrize("framework", ["lightning", "transformers"])
def test_examples_run(framework: str) -> None:
    pytest.importorskip(framework, reason='pip install "flatmin[integrations]"')
    module = importlib.import_module(f"flatmin.integrations.{framework}")
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried >= 4 and failed == 0
