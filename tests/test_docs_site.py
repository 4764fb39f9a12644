"""The site of the documentation: its pages, its links, and that no public name is left out."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
INDEX = """# Page

[a](nowhere.md) [b](other.md#nowhere) [c](results/nowhere.json) [d](#nowhere)

```{toctree}
other
```

```{eval-rst}
.. automodule:: flatmin.objective
```
"""


@pytest.fixture(scope="module")
def public_names() -> ModuleType:
    """The extension that looks for names that no page documents."""
    spec = importlib.util.spec_from_file_location("names", DOCS / "site" / "public_names.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_room_has_a_page() -> None:
    import flatmin

    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE))
    assert shown >= {f"flatmin.{room}" for room in flatmin._ROOMS}


def test_every_page_is_in_a_list_of_contents() -> None:
    index = (DOCS / "index.md").read_text()
    listed = set(re.findall(r"^([\w/]+)$", index, re.MULTILINE))
    folders = {entry for entry in ("how_to", "reference", "results") if f"{entry}/*" in index}
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        inside = name.partition("/")[0] in folders
        assert inside or name in listed or name == "index", f"{name} is in no list of contents"


def test_a_name_that_no_page_documents_is_noticed(public_names: ModuleType) -> None:
    promised = dict(public_names.promised())
    assert {"flatmin.SAM", "flatmin.Ball", "flatmin.train.train"} <= set(promised)
    assert "flatmin.integrations.lightning.SharpnessAware" in promised
    everything = {next(iter(alike)) for alike in promised.values()}
    assert public_names.missing(everything) == []
    assert public_names.missing(everything - promised["flatmin.Ball"]) == ["flatmin.Ball"]


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `run.py docs` does."""
    words = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", source, site]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    for page in DOCS.rglob("*.md"):
        assert (tmp_path / page.relative_to(DOCS).with_suffix(".html")).exists()
    optim = (tmp_path / "reference" / "optim.html").read_text()
    assert 'id="flatmin.optim.SAM.perturbed"' in optim
    assert "<math" in optim
    # Nothing is fetched when a page is read.
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', optim)


@pytest.mark.slow
def test_dead_links_and_missing_names_are_errors(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    source = tmp_path / "docs"
    shutil.copytree(DOCS / "site", source / "site")
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text(INDEX)
    (source / "other.md").write_text("# Other\n")
    done = build(source, tmp_path / "site")
    assert done.returncode == 1
    for link in ("nowhere.md", "doc 'other': 'nowhere'", "results/nowhere.json", "'nowhere'"):
        assert link in done.stderr, link
    assert "no page of the reference documents flatmin.SAM" in done.stderr
    assert "documents flatmin.objective" not in done.stderr
