"""Pictures of every kind: as a viewer shows them, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatmin.data import ImageSet, load_image_folder
from flatmin.data._picture import PictureError, look, pixels

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 8), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)
OPAQUE = np.full((6, 8), 255, np.uint8)


def written(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(array: np.ndarray, depth: int, color: int) -> bytes:
    """A PNG file by hand: Pillow writes no 16 bits in color."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def put(folder: Path, first: bytes, second: bytes | None = None) -> Path:
    """A folder of images whose first file is the one in question."""
    for split in ("train", "test"):
        for name in "ab":
            path = folder / split / name
            path.mkdir(parents=True)
            (path / "1.png").write_bytes(first if second is None or name == "a" else second)
    return folder


def one(folder: Path, content: bytes) -> np.ndarray:
    train: ImageSet = load_image_folder(put(folder, content))[0]
    return train.images[0].numpy()


def with_alpha(array: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack((array, alpha)))


def palette() -> Image.Image:
    return Image.fromarray(COLOR).quantize(16)


RIGHT: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "gray": (lambda: written(Image.fromarray(GRAY)), GRAY[None]),
    "gray, 8 bits by hand": (lambda: png(GRAY, 8, 0), GRAY[None]),
    "gray with alpha": (lambda: written(with_alpha(GRAY, OPAQUE)), GRAY[None]),
    "color": (lambda: written(Image.fromarray(COLOR)), COLOR.transpose(2, 0, 1)),
    "color with alpha": (lambda: written(with_alpha(COLOR, OPAQUE)), COLOR.transpose(2, 0, 1)),
    "one bit": (
        lambda: written(Image.fromarray(GRAY > 127)),
        np.where(GRAY > 127, 255, 0).astype(np.uint8)[None],
    ),
    "palette": (
        lambda: written(palette()),
        np.asarray(palette().convert("RGB")).transpose(2, 0, 1),
    ),
    "turned": (
        lambda: written(Image.fromarray(GRAY), exif=_turned(6)),
        np.rot90(GRAY, -1)[None],
    ),
    "turned, in color": (
        lambda: written(Image.fromarray(COLOR), exif=_turned(3)),
        np.rot90(COLOR, 2).transpose(2, 0, 1),
    ),
}
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 bits": (lambda: written(Image.fromarray(GRAY.astype(np.uint16) * 257)), "more than 8 bits"),
    "16 bits by hand": (lambda: png(GRAY.astype(np.uint16) * 16, 16, 0), "more than 8 bits"),
    "16 bits in color": (lambda: png(COLOR.astype(np.uint16) * 257, 16, 2), "more than 8 bits"),
    "16 bits and alpha": (
        lambda: png(np.dstack((GRAY, OPAQUE)).astype(np.uint16) * 257, 16, 4),
        "more than 8 bits",
    ),
    "transparent": (lambda: written(with_alpha(COLOR, GRAY)), "partly transparent"),
    "transparent gray": (lambda: written(with_alpha(GRAY, GRAY)), "partly transparent"),
    "transparent level": (
        lambda: written(Image.fromarray(GRAY), transparency=int(GRAY[0, 0])),
        "partly transparent",
    ),
    "transparent palette": (lambda: written(palette(), transparency=0), "partly transparent"),
    "half transparent palette": (
        lambda: written(palette(), transparency=bytes([128] * 16)),
        "partly transparent",
    ),
    "moving": (
        lambda: written(
            Image.fromarray(COLOR), save_all=True, append_images=[Image.fromarray(COLOR[::-1])]
        ),
        "moves, with 2 pictures",
    ),
    "no picture": (lambda: b"GIF89a", "no PNG or JPEG"),
    "cut off": (lambda: written(Image.fromarray(COLOR))[:-40], "damaged"),
}


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", RIGHT)
def test_pixels_are_those_that_a_viewer_shows(kind: str, tmp_path: Path) -> None:
    content, expected = RIGHT[kind]
    assert np.array_equal(one(tmp_path, content()), expected)


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_come_out_right_is_refused(kind: str, tmp_path: Path) -> None:
    content, words = WRONG[kind]
    good = written(Image.fromarray(COLOR))
    for number, files in enumerate([(content(), None), (good, content())]):
        with pytest.raises(ValueError, match=rf"1\.png .*({words})") as caught:
            load_image_folder(put(tmp_path / str(number), *files))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_cmyk_is_mixed_from_its_inks(tmp_path: Path) -> None:
    inks = np.full((16, 8, 4), (51, 102, 0, 51), np.uint8)  # 0.2, 0.4, 0, 0.2 of 255
    inks[8:] = 0  # no ink: white
    image = Image.frombytes("CMYK", (8, 16), inks.tobytes())
    found = one(tmp_path, written(image, "JPEG", quality=100))
    expected = [255 * (1 - c) * (1 - 0.2) for c in (0.2, 0.4, 0.0)]
    assert np.abs(found[:, :8].reshape(3, -1).mean(1) - expected).max() < 3  # rounded by JPEG
    assert found[:, 8:].min() > 252


def test_a_damaged_png_is_never_another_picture(tmp_path: Path) -> None:
    good = written(Image.fromarray(COLOR))
    start = good.index(b"IDAT")
    for place in range(start + 4, len(good) - 16):
        bad = bytearray(good)
        bad[place] ^= 4
        with pytest.raises(PictureError, match="damaged"):
            pixels(io.BytesIO(bytes(bad)))


@pytest.mark.slow
def test_sizes_are_compared_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = written(Image.fromarray(GRAY)), written(Image.new("1", (12_000, 12_000)))
    seen = look(io.BytesIO(large))
    assert (seen.width, seen.height, seen.gray) == (12_000, 12_000, True)

    def load(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for number, files in enumerate([(small, large), (large, small)]):
        with pytest.raises(ValueError, match=r"12000 × 12000.*bring all images to one size"):
            load_image_folder(put(tmp_path / str(number), *files))
