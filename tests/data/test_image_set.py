from typing import Any

import pytest
import torch

from flatmin.data import ImageSet
from flatmin.data.image_set import channel_statistics


def image_set(**changes: Any) -> ImageSet:
    fields: dict[str, Any] = {
        "images": torch.arange(3 * 2 * 4, dtype=torch.uint8).view(3, 2, 2, 2),
        "labels": torch.tensor([0, 1, 1]),
        "classes": ("a", "b"),
        "source": "made",
        "mean": (0.5, 0.5),
        "std": (1.0, 1.0),
    }
    return ImageSet(**(fields | changes))


def test_subset_keeps_the_order_asked_for() -> None:
    whole = image_set()
    part = whole.subset(torch.tensor([2, 0]))
    assert torch.equal(part.images, whole.images[[2, 0]])
    assert part.labels.tolist() == [1, 0]
    assert (part.classes, part.source, part.mean) == (whole.classes, whole.source, whole.mean)


def test_to_moves_both_tensors() -> None:
    moved = image_set().to("cpu")
    assert moved.device.type == "cpu"
    assert torch.equal(moved.images, image_set().images)


def test_the_fingerprint_is_that_of_pixels_and_labels() -> None:
    whole = image_set()
    assert whole.fingerprint() == image_set(source="elsewhere").fingerprint()
    layout = whole.images.contiguous(memory_format=torch.channels_last)
    assert whole.fingerprint() == image_set(images=layout).fingerprint()
    assert whole.fingerprint() != image_set(images=whole.images + 1).fingerprint()
    assert whole.fingerprint() != image_set(labels=torch.tensor([0, 1, 0])).fingerprint()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(3, 2, 2, 2)}, TypeError, "uint8"),
        ({"labels": torch.zeros(3)}, TypeError, "int64"),
        ({"images": torch.zeros(3, 2, 2, dtype=torch.uint8)}, ValueError, "shape"),
        ({"labels": torch.tensor([0, 1])}, ValueError, "shape"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, "between 0 and 1"),
        ({"labels": torch.tensor([0, 1, -1])}, ValueError, "between 0 and 1"),
        ({"mean": (0.5,)}, ValueError, "2 channels"),
        ({"std": (1.0, 0.0)}, ValueError, "above 0"),
    ],
)
def test_refuses_what_does_not_fit(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        image_set(**changes)


def test_refuses_an_empty_set() -> None:
    with pytest.raises(ValueError, match="at least one"):
        image_set().subset(torch.tensor([], dtype=torch.int64))


def test_statistics_are_those_of_the_pixels_as_floats() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 5, 7), dtype=torch.uint8, generator=generator)
    mean, std = channel_statistics(images)
    pixels = images.double().div(255).transpose(0, 1).flatten(1)
    expected = (pixels.mean(1), pixels.std(1, correction=0))
    torch.testing.assert_close(
        torch.tensor(mean, dtype=torch.float64), expected[0], rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        torch.tensor(std, dtype=torch.float64), expected[1], rtol=1e-12, atol=0
    )
    with pytest.raises(TypeError, match="uint8"):
        channel_statistics(images.float())
