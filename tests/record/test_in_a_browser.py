"""The page of results in a browser: three widths, both themes, and on paper."""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt install chromium"),
]

# Opens the page in a frame of each width, with everything unfolded, and writes what it finds.
PROBE = """<!doctype html><meta charset="utf-8"><pre id="found">nothing</pre><script>
const found = [];
async function look(width) {
  const frame = document.createElement('iframe');
  frame.width = width; frame.height = 900; frame.src = 'index.html';
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  const page = frame.contentDocument;
  page.querySelectorAll('details').forEach(part => part.open = true);
  await Promise.all([...page.images].map(image => image.decode().catch(() => 0)));
  const root = page.scrollingElement;
  found.push({
    width, beyond: root.scrollWidth - root.clientWidth,
    dark: frame.contentWindow.matchMedia('(prefers-color-scheme: dark)').matches,
    images: page.images.length,
    missing: [...page.images].filter(image => !image.naturalWidth).length,
    undescribed: [...page.images].filter(image => !image.alt).length,
    ink: getComputedStyle(page.body).color,
    paper: getComputedStyle(page.body).backgroundColor,
  });
}
(async () => {
  for (const width of [375, 768, 1280]) await look(width);
  document.getElementById('found').textContent = JSON.stringify(found);
})();
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and the probe beside it."""

    def do_GET(self) -> None:
        if self.path != "/probe.html":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PROBE.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def chromium(*words: str) -> subprocess.CompletedProcess[str]:
    headless = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    return subprocess.run([*headless, *words], capture_output=True, text=True, timeout=200)


def opened(folder: Path, *, dark: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """What is found at each width, and what was written to the console."""
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    with served(folder) as address:
        ran = chromium(theme, "--virtual-time-budget=60000", "--dump-dom", f"{address}/probe.html")
    text = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert text is not None and text[1] != "nothing", ran.stderr[-2000:]
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(text[1])), console


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_published_page_fits_every_width_in_both_themes(dark: bool) -> None:
    looks, console = opened(RESULTS, dark=dark)
    assert [look["width"] for look in looks] == [375, 768, 1280]
    for look in looks:
        assert look["dark"] is dark
        assert look["beyond"] == 0
        assert look["images"] >= 16 and look["missing"] == look["undescribed"] == 0
        ink, paper = (
            sum(map(int, re.findall(r"\d+", look[name])[:3])) for name in ("ink", "paper")
        )
        assert (ink - paper > 400) if dark else (paper - ink > 400)  # of 765
    assert console == []


def test_what_is_wrong_with_a_page_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<body><p style="width: 2000px">wide</p><img src="lost.png">'
        "<script>console.error('oh')</script></body>"
    )
    looks, console = opened(tmp_path, dark=False)
    assert all(look["beyond"] > 0 and look["missing"] == look["undescribed"] == 1 for look in looks)
    assert any("oh" in line for line in console)


def test_the_published_page_prints_on_few_sheets(tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    with served(RESULTS) as address:
        chromium("--no-pdf-header-footer", f"--print-to-pdf={printed}", f"{address}/index.html")
    sheets = len(re.findall(rb"/Type\s*/Page[^s]", printed.read_bytes()))
    assert 1 < sheets <= 15
