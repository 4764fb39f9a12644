"""One PNG or JPEG file: what it says about itself, and its pixels with 8 bits a channel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_GRAY, _COLOR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK")
_TURNED = range(5, 9)  # orientations that exchange height and width


class PictureError(Exception):
    """Why a picture cannot be taken, in words that complete a sentence which begins with it."""


class DamagedError(PictureError):
    """It is none, or it is damaged."""

    def __init__(self, error: Exception) -> None:
        text = " ".join(str(error).split()).rstrip(".")
        super().__init__(f"is no PNG or JPEG image, or is damaged ({text}): remove or replace it")


@dataclass(frozen=True, slots=True)
class Look:
    """What a file says before anything of it is decoded: its size as shown, and if it is gray."""

    width: int
    height: int
    gray: bool


def look(file: IO[bytes]) -> Look:
    """Read the header of a picture.

    Args:
        file: The file, or its bytes.

    Returns:
        What it says.

    Raises:
        PictureError: If it is of a kind whose pixels would not come out right.
        DamagedError: If it is no picture, or a damaged one.
    """
    try:
        image = opened(file)
        width, height = image.size
        if _orientation(image) in _TURNED:
            width, height = height, width
    except PictureError:
        raise
    except Exception as error:  # damaged images raise whatever the decoder stumbles over
        raise DamagedError(error) from error
    return Look(width, height, image.mode in _GRAY)


def pixels(file: IO[bytes]) -> NDArray[np.uint8]:
    """Decode a picture, turned as a viewer shows it.

    Args:
        file: The file, or its bytes.

    Returns:
        uint8 of shape [height, width, 3], or [height, width, 1] if it is gray.

    Raises:
        PictureError: If it is partly transparent, or of a kind that would not come out right.
        DamagedError: If it is no picture, or a damaged one.
    """
    from PIL import ImageOps

    try:
        with opened(file) as stored:
            gray = stored.mode in _GRAY
            image: Image = ImageOps.exif_transpose(stored)
            if image.mode in ("LA", "RGBA") or "transparency" in image.info:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema() != (255, 255):
                    raise PictureError(
                        "is partly transparent, and what shines through is not known: paste it "
                        "onto a background"
                    )
            image = image.convert("L" if gray else "RGB")
            found = np.asarray(image, dtype=np.uint8)
    except PictureError:
        raise
    except Exception as error:  # as above
        raise DamagedError(error) from error
    return found[:, :, None] if gray else found


def opened(file: IO[bytes]) -> Image:
    """Open a picture, without decoding it, if it is of a kind that comes out right.

    Args:
        file: The file, or its bytes.

    Returns:
        What Pillow makes of it.

    Raises:
        PictureError: If it is of another kind.
    """
    from PIL import Image as images

    start = file.read(25)
    file.seek(0)
    with warnings.catch_warnings():
        # A large picture is compared with the others' size before it is decoded.
        warnings.simplefilter("ignore", images.DecompressionBombWarning)
        image = images.open(file, formats=("PNG", "JPEG"))
    # Pillow has modes for gray images of more bits, and of color drops the lower ones.
    if image.mode.startswith(("I", "F")) or (start.startswith(_PNG) and start[24] > 8):
        raise PictureError(
            "has more than 8 bits a channel, and images here have 8: which levels matter only you "
            "know, so scale it to 0 … 255 and save it with 8"
        )
    if image.mode not in _GRAY + _COLOR:
        raise PictureError(f"has the color mode {image.mode}: save it in gray or RGB")
    # JPEG files of phones carry further pictures behind the one that is shown.
    frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
    if frames > 1:
        raise PictureError(f"moves, with {frames} pictures: save each in a file of its own")
    return image


def _orientation(image: Image) -> int:
    # Pillow would decode a PNG file to find what does not stand in front of its pixels.
    known = image.format != "PNG" or "exif" in image.info
    return int(image.getexif().get(0x0112, 1)) if known else 1
