"""The Python of README.md and of docs/*.md runs, page by page, as a reader would type it.

The blocks of a page share one namespace and run in order, in an empty folder. A block with prompts
is a doctest. What a page needs but need not show stands in a comment: ``<!-- python ... -->``.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$|^<!-- python\n(.*?)^-->$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """Return each block with the number of lines before it."""
    found = []
    for match in BLOCK.finditer(text):
        group = 1 if match.group(1) is not None else 2
        found.append((text.count("\n", 0, match.start(group)), match.group(group)))
    return found


def run_page(text: str, name: str) -> None:
    """Run the blocks of a page; line numbers in a failure are those of the page."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, source in blocks(text):
        if ">>>" in source:
            example = doctest.DocTestParser().get_doctest(source, namespace, name, name, line)
            runner = doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            runner.run(example, clear_globs=False)
            namespace = example.globs
        else:
            exec(compile("\n" * line + source, name, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), str(page))


GOOD = """\
<!-- python
a = 1
-->

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


def test_blocks_share_a_namespace() -> None:
    assert [line for line, _ in blocks(GOOD)] == [1, 5, 13, 19]
    run_page(GOOD, "page")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("3\n", "5\n", doctest.DocTestFailure),
        (">>> c = 4", ">>> c = d", doctest.UnexpectedException),
        ("c == 4", "c == 5", AssertionError),
    ],
)
def test_a_wrong_example_is_noticed(old: str, new: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_page(GOOD.replace(old, new), "page")
