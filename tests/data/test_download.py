"""An archive comes whole and checked, goes on where it broke off, or is not there."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cifar_files import make_cifar, python_files, write_hub, write_tar

from flatmin.cli import main
from flatmin.data import DownloadError, cifar, load_cifar10
from flatmin.data._download import Archive, fetch

CONTENTS = bytes(range(256)) * 20_000  # 5 MB: several pieces


@dataclass
class Site:
    """What a web site offers, how it misbehaves, and which places it was asked for."""

    contents: bytes = CONTENTS
    breaks_after: int | None = None
    ranges: bool = True
    page: bytes | None = None
    length: bool = True
    status: int | None = None
    asked: list[int] = field(default_factory=list)
    archive: Archive = field(default=Archive("", 0, ""))


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])  # type: ignore[index]
            site.asked.append(start)
            if site.status:
                self.send_error(site.status)
                return
            if site.page is not None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if site.length else "")
                if site.length:
                    self.send_header("Content-Length", str(len(site.page)))
                self.end_headers()
                self.wfile.write(site.page)
                return
            start = start if site.ranges else 0
            body = site.contents[start:]
            self.send_response(206 if site.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    digest = hashlib.sha256(CONTENTS).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/set.tar.gz"
    site.archive = Archive(url, len(CONTENTS), digest)
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def get(site: Site, folder: Path) -> bytes:
    return fetch(site.archive, folder).read_bytes()


def test_archive_arrives_whole_and_once(site: Site, tmp_path: Path) -> None:
    path = fetch(site.archive, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENTS
    assert fetch(site.archive, path.parent) == path
    assert site.asked == [0]
    assert [file.name for file in path.parent.iterdir()] == ["set.tar.gz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_goes_on(site: Site, tmp_path: Path, ranges: bool) -> None:
    """Where a site cannot go on in the middle, the file begins anew and is as sound."""
    site.breaks_after, site.ranges = 3_000_000, ranges
    with pytest.raises(DownloadError, match=r"broke off after 3,000,000 of 5,120,000 bytes"):
        get(site, tmp_path)
    assert not (tmp_path / "set.tar.gz").exists()
    site.breaks_after = None
    assert get(site, tmp_path) == CONTENTS
    assert site.asked == [0, 3_000_000]


def test_broke_off_behind_the_last_byte(site: Site, tmp_path: Path) -> None:
    """Killed between the last byte and the check: nothing is asked for again."""
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENTS)
    assert get(site, tmp_path) == CONTENTS
    assert site.asked == []


@pytest.mark.parametrize("change", ["other", "longer"])
def test_another_file_is_thrown_away(site: Site, tmp_path: Path, change: str) -> None:
    site.contents = CONTENTS[::-1] if change == "other" else CONTENTS + b"more"
    with pytest.raises(DownloadError, match="brought another file: its SHA-256"):
        get(site, tmp_path)
    assert not (tmp_path / "set.tar.gz").exists()
    site.contents = CONTENTS
    assert get(site, tmp_path) == CONTENTS


def test_damaged_part_is_noticed_and_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz.part").write_bytes(b"?" * 1000)
    with pytest.raises(DownloadError, match="brought another file"):
        get(site, tmp_path)
    assert get(site, tmp_path) == CONTENTS
    assert site.asked == [1000, 0]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [500, len(CONTENTS)])
def test_a_page_takes_nothing_of_what_had_arrived(
    site: Site, tmp_path: Path, size: int, length: bool
) -> None:
    """A wireless network's own page, say, in the place of the file."""
    site.breaks_after = 3_000_000
    with pytest.raises(DownloadError, match="broke off"):
        get(site, tmp_path)
    site.page, site.length = b"<html>" + b"x" * (size - 6), length
    with pytest.raises(DownloadError, match=r"something else .*The 3,000,000 bytes .* are kept"):
        get(site, tmp_path)
    assert (tmp_path / "set.tar.gz.part").read_bytes() == CONTENTS[:3_000_000]
    site.page = site.breaks_after = None
    assert get(site, tmp_path) == CONTENTS
    assert site.asked == [0, 3_000_000, 3_000_000]


def test_a_page_is_not_taken_for_the_beginning(site: Site, tmp_path: Path) -> None:
    site.page = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="answered by something else"):
        get(site, tmp_path)
    site.page = None
    assert get(site, tmp_path) == CONTENTS


def test_another_file_that_is_there_is_not_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"is not the official set\.tar\.gz: its SHA-256"):
        get(site, tmp_path)
    assert (tmp_path / "set.tar.gz").read_bytes() == b"mine" and site.asked == []


def test_missing_file_and_missing_site(site: Site, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(DownloadError, match=r"after 0 of 5,120,000 bytes \(Not Found\)"):
        get(site, tmp_path)
    nobody = replace(site.archive, url="http://127.0.0.1:9/set.tar.gz")
    with pytest.raises(DownloadError, match="refused"):
        fetch(nobody, tmp_path)


def test_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        get(site, tmp_path / "file")


def test_several_at_once_fetch_once(site: Site, tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(get(site, tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENTS] * 6 and site.asked == [0]
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]


@pytest.fixture
def tiny(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site offers a CIFAR-10 of three images a file, as the official archive has them."""
    files = python_files(make_cifar(10), 10)
    site.contents = write_tar(tmp_path / "made" / "cifar.tar.gz", files).read_bytes()
    digest = hashlib.sha256(site.contents).hexdigest()
    url = site.archive.url.replace("set", "cifar-10-python")
    site.archive = Archive(url, len(site.contents), digest)
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, official=site.archive))
    return site


def test_nothing_is_downloaded_unless_asked(tiny: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_cifar10(tmp_path / "data")
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="ask for a download"):
        load_cifar10(tmp_path / "data")
    assert tiny.asked == []
    assert len(load_cifar10(tmp_path / "data", download=True)[0]) == 15
    assert len(load_cifar10(tmp_path / "data", download=True)[0]) == 15
    assert tiny.asked == [0]


def test_nor_where_the_images_are_in_another_form(tiny: Site, tmp_path: Path) -> None:
    write_hub(tmp_path / "hub", make_cifar(10))
    assert len(load_cifar10(tmp_path / "hub", download=True)[0]) == 15
    assert tiny.asked == []


def test_on_the_command_line(
    tiny: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--set", "epochs=1", "evaluate_train=0"]
    words = ["train", "--data", str(tmp_path / "data"), *small]
    assert main(words) == 2
    for verb in (["train", "--download", *small], ["run", "fig7", "--quick", "--download"]):
        assert main(verb) == 2
        assert "--download needs --data" in capsys.readouterr().err
    tiny.breaks_after = 500
    assert main([*words, "--download"]) == 1
    assert "the same command goes on from there" in capsys.readouterr().err
    tiny.breaks_after = None
    assert main([*words, "--download"]) == 0
    assert tiny.asked == [0, 500]
