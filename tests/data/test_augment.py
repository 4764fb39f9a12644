import numpy as np
import pytest
import torch
from torch import Tensor

from flatmin.data import Augment, normalize


def one_by_one(images: Tensor, choices: Tensor, padding: int) -> Tensor:
    """Crop and flip as one would on paper."""
    done = []
    for image, (top, left, flip) in zip(images.numpy(), choices.tolist(), strict=True):
        height, width = image.shape[1:]
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        window = padded[:, top : top + height, left : left + width]
        done.append(torch.from_numpy((window[:, :, ::-1] if flip else window).copy()))
    return torch.stack(done)


@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (50, 1, 8, 8), (50, 2, 5, 9)])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_moving_one_image_after_the_other(
    shape: tuple[int, ...], padding: int, flip: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)
    before = images.clone()
    augment = Augment(padding, flip)
    choices = augment.choose(len(images), generator=generator)
    moved = augment(images, choices)
    assert moved.dtype == torch.uint8
    assert torch.equal(moved, one_by_one(images, choices, padding))
    assert torch.equal(images, before)
    assert torch.equal(moved, images) == (padding == 0 and not flip)


def test_choices_are_uniform() -> None:
    n = 90_000
    choices = Augment(4, True).choose(n, generator=torch.Generator().manual_seed(0))
    for column, values in ((0, 9), (1, 9), (2, 2)):
        counts = choices[:, column].bincount(minlength=values)
        p = 1 / values
        assert counts.shape == (values,)
        assert (counts / n - p).abs().max() < 4 * (p * (1 - p) / n) ** 0.5
    joint = (choices[:, 0] * 9 + choices[:, 1]).bincount(minlength=81)
    assert (joint / n - 1 / 81).abs().max() < 4.5 * (1 / 81 / n) ** 0.5


def test_without_crop_or_flip_nothing_is_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    assert not Augment(0, False).choose(100, generator=generator).any()
    assert not Augment(4, False).choose(100, generator=generator)[:, 2].any()


def test_padding_is_black_before_normalization() -> None:
    white = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    moved = Augment(1)(white, torch.tensor([[0, 0, 0]]))
    assert moved.tolist() == [[[[0, 0], [0, 255]]]]
    assert normalize(moved, (0.5,), (0.25,)).tolist() == [[[[-2.0, -2.0], [-2.0, 2.0]]]]


def test_normalizing_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8, generator=generator)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    wide = normalize(images, mean, std, dtype=torch.float64)
    for c in range(3):
        expected = (images[:, c].double() / 255 - mean[c]) / std[c]
        torch.testing.assert_close(wide[:, c], expected, rtol=1e-12, atol=1e-14)
    narrow = normalize(images, mean, std)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-6)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="crop_padding"):
        Augment(-1)
    with pytest.raises(TypeError, match="uint8"):
        normalize(torch.zeros(1, 1, 2, 2), (0.5,), (0.5,))
