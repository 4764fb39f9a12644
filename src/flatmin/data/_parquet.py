"""The hub's layout of CIFAR: parquet files with encoded images."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flatmin.data._cache import cached
from flatmin.data._part import Part, as_labels
from flatmin.data._picture import PictureError, opened

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def check_shards(files: Sequence[Path]) -> None:
    """Names such as train-00000-of-00002.parquet say how many files there are."""
    for file in files:
        match = re.search(r"-of-(\d+)", file.name)
        if match and int(match[1]) != len(files):
            raise ValueError(
                f"{file} is one of {int(match[1])} files, but {len(files)} are in its folder; "
                "get the missing ones, and put other files elsewhere."
            )


def read_shard(file: Path, label_column: str, cache: Path | None = None) -> Part:
    """Decode the images of one file, or take them from the cache.

    Args:
        file: A parquet file.
        label_column: Name of the column of labels.
        cache: Folder in which decoded images are kept.

    Returns:
        The images, labels, and whether any image is a JPEG.

    Raises:
        ImportError: If pyarrow or Pillow is not installed.
        ValueError: If the file is damaged or foreign.
    """
    try:
        import PIL
        import pyarrow  # noqa: F401 - fail here, before any work
    except ImportError as error:
        raise ImportError(
            'Reading parquet files needs pyarrow and Pillow: pip install "flatmin[experiments]".'
        ) from error

    if cache is None:
        return _decode_shard(file, label_column)
    # Decoders of different versions may round differently.
    recipe = f"{label_column}, Pillow {PIL.__version__}"
    return cached(file, cache, lambda: _decode_shard(file, label_column), recipe=recipe)


def _decode_shard(file: Path, label_column: str) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as stream:
        try:
            shard = pq.ParquetFile(stream)
            schema = shard.schema_arrow
            image_column = "img" if "img" in schema.names else "image"
            if not (
                schema.names.count(image_column) == schema.names.count(label_column) == 1
                and pa.types.is_struct(schema.field(image_column).type)
                and schema.field(image_column).type.get_field_index("bytes") >= 0
                and pa.types.is_integer(schema.field(label_column).type)
            ):
                raise _foreign(file, f"the columns {schema.names}", label_column)
            table = shard.read(columns=[image_column, label_column])
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is no readable parquet file: it is truncated or damaged; get it again."
            ) from error
    encoded = table[image_column].combine_chunks().field("bytes").to_pylist()
    labels = table[label_column].to_pylist()
    if None in labels or not all(isinstance(image, bytes) for image in encoded):
        raise _foreign(file, "rows without image or label", label_column)
    raw = b"".join([_decode(image, file, row) for row, image in enumerate(encoded)])
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, 32, 32, 3)
    return Part(
        images=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
        labels=as_labels(labels, str(file)),
        lossy=any(image.startswith(_JPEG) for image in encoded),
    )


def _foreign(file: Path, found: str, label_column: str) -> ValueError:
    return ValueError(
        f"{file} has {found}, expected images as a struct with 'bytes' in 'img' (or 'image') and "
        f"an integer in '{label_column}'; name the folder of the right data set."
    )


def _decode(image: bytes, file: Path, row: int) -> bytes:
    if not image.startswith((_JPEG, _PNG)):
        raise ValueError(f"{file}, row {row}: expected a PNG or JPEG image; get the file again.")
    try:
        decoder = opened(io.BytesIO(image))
        if (decoder.size, decoder.mode) == ((32, 32), "RGB"):
            return decoder.tobytes()
    except PictureError as error:
        raise ValueError(f"{file}, row {row}: the image {error}; get the file again.") from error
    except Exception as error:  # damaged images raise whatever the decoder stumbles over
        raise ValueError(
            f"{file}, row {row}: the image is damaged ({error}); get the file again."
        ) from error
    raise ValueError(
        f"{file}, row {row}: expected an RGB image of 32 × 32 pixels, got {decoder.mode} of "
        f"{decoder.width} × {decoder.height}; name the folder of the right data set."
    )
