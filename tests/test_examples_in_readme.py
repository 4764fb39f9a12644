"""The Python of README.md and of docs/ runs, page by page, as a reader would paste it.

The blocks of a page share one namespace and run in order, in an empty folder; those of a how-to
run alone, each in a namespace of its own. Nothing is prepared for them. A block with prompts is a
doctest. One that begins with a comment that is a file name is also saved under it.
"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HOW_TO = ROOT / "docs" / "how_to"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(HOW_TO.glob("*.md"))]
FRAMEWORKS = ROOT / "docs" / "frameworks.md"  # may be missing, and take their time
MANY_GPUS = HOW_TO / "many_gpus.md"  # in processes of their own, which groups of processes need
_LONG = ("choosing", "compare", "ensemble", "looking", "start", "symmetry", "training")
LONG = [ROOT / "docs" / f"{name}.md" for name in _LONG]  # tests/ has small cases of each
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """Return each block with the number of lines before it."""
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in BLOCK.finditer(text)]


def run_page(text: str, name: str, *, alone: bool = False) -> None:
    """Run the blocks of a page; line numbers in a failure are those of the page."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, source in blocks(text):
        if alone:
            namespace = {"__name__": "__main__"}
        if file := re.match(r"# (\w+\.py)\n", source):
            Path(file[1]).write_text(source)
        if ">>>" in source:
            example = doctest.DocTestParser().get_doctest(source, namespace, name, name, line)
            runner = doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            runner.run(example, clear_globs=False)
            namespace = example.globs
        else:
            exec(compile("\n" * line + source, name, "exec"), namespace)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page in LONG else [])
        for page in PAGES
        if page not in (FRAMEWORKS, MANY_GPUS)
    ],
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), str(page), alone=page.parent == HOW_TO)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")  # ours
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
@pytest.mark.parametrize("line, source", blocks(FRAMEWORKS.read_text(encoding="utf-8")))
def test_the_page_on_frameworks_runs(
    line: int, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for framework in re.findall(r"(?m)^from (lightning|transformers|accelerate|skorch)\b", source):
        pytest.importorskip(framework, reason='pip install "flatmin[integrations]"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_page("\n" * (line - 1) + f"```python\n{source}```\n", str(FRAMEWORKS))


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("number", [0, 1], ids=["DDP", "FSDP2"])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_page_on_many_gpus_runs(number: int, processes: int, tmp_path: Path) -> None:
    _, source = blocks(MANY_GPUS.read_text(encoding="utf-8"))[number]
    program = tmp_path / "program.py"
    program.write_text(source + f"\nopen(f'{tmp_path}/{{torch.initial_seed()}}', 'w').close()\n")
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(many if processes > 1 else []), str(program)]
    subprocess.run(command, check=True, timeout=240)
    ranks = {file.name for file in tmp_path.iterdir()} - {"program.py"}
    assert ranks == {str(rank) for rank in range(processes)}  # by which they were seeded


def test_a_page_hides_nothing() -> None:
    assert not [page.name for page in PAGES if "<!--" in page.read_text(encoding="utf-8")]


GOOD = """\
```python
# one.py
a = 1
```

```python
b = a + 1
```

```
not python
```

```python
>>> a + b
3
>>> c = 4
```

```python
assert c == 4
```
"""


def test_blocks_share_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [line for line, _ in blocks(GOOD)] == [1, 6, 14, 20]
    run_page(GOOD, "page")
    assert Path("one.py").read_text() == "# one.py\na = 1\n"
    with pytest.raises(NameError):
        run_page(GOOD, "page", alone=True)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("3\n", "5\n", doctest.DocTestFailure),
        (">>> c = 4", ">>> c = d", doctest.UnexpectedException),
        ("c == 4", "c == 5", AssertionError),
    ],
)
def test_a_wrong_example_is_noticed(
    old: str,
    new: str,
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        run_page(GOOD.replace(old, new), "page")
