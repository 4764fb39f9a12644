"""What has moved is found in its old place for one release, with a word on where it went."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

from flatmin import ensemble, train


@pytest.mark.parametrize("name", ensemble.__all__)
def test_the_old_import_works_and_says_where_it_went(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"from flatmin.ensemble import {name}$"):
        assert getattr(train, name) is getattr(ensemble, name)


def test_the_warning_points_at_the_import() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("from flatmin.train import Ensemble", "a_users_file.py", "exec"), {})
    assert {warning.filename for warning in caught} == {"a_users_file.py"}


def test_other_names_are_as_unknown_as_before() -> None:
    with pytest.raises(AttributeError, match=r"'flatmin\.train' has no attribute 'Ensembles'"):
        _ = train.Ensembles
    with pytest.raises(ImportError, match="cannot import name 'Ensembles'"):
        exec("from flatmin.train import Ensembles")
    assert not set(ensemble.__all__) & set(train.__all__)


def test_training_does_not_load_the_ensembles() -> None:
    code = "import sys, flatmin.train\nsys.exit('flatmin.ensemble' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert importlib.import_module("flatmin.ensemble") is ensemble
