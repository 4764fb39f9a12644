import pytest
import torch
from torch import Tensor

from flatmin.data import Augment, Batches, ImageSet, normalize

Epoch = list[tuple[Tensor, Tensor]]


def make_images(n: int = 103, channels: int = 3, size: int = 8) -> ImageSet:
    """Images whose first pixel numbers them, and whose label is that number modulo 10."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(
        0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator
    )
    images[:, 0, 0, 0] = torch.arange(n)
    return ImageSet(
        images=images,
        labels=torch.arange(n) % 10,
        classes=tuple("0123456789"),
        source="made",
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(a: Epoch, b: Epoch) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def numbers(epoch: Epoch) -> list[int]:
    """Which images an epoch without augmentation went through."""
    first = torch.cat([images[:, 0, 0, 0] for images, _ in epoch])
    return first.mul(0.2).add(0.4).mul(255).round().long().tolist()


def test_an_epoch_takes_every_image_once_with_its_label() -> None:
    batches = Batches(make_images(), 16, generator=seeded())
    epoch = list(batches)
    assert [len(labels) for _, labels in epoch] == [16] * 6 + [7]
    assert len(batches) == 7
    seen = numbers(epoch)
    assert sorted(seen) == list(range(103))
    assert seen != sorted(seen)
    assert torch.cat([labels for _, labels in epoch]).tolist() == [k % 10 for k in seen]
    assert numbers(list(batches)) != seen


def test_without_shuffle_images_come_in_order_every_time() -> None:
    images = make_images()
    batches = Batches(images, 50, shuffle=False)
    assert numbers(list(batches)) == list(range(103))
    assert equal(list(batches), list(batches))
    whole = torch.cat([x for x, _ in batches])
    assert torch.equal(whole, normalize(images.images, images.mean, images.std))


def test_drop_last_leaves_out_the_rest() -> None:
    batches = Batches(make_images(), 16, generator=seeded(), drop_last=True)
    assert [len(labels) for _, labels in batches] == [16] * 6
    assert len(batches) == 6
    assert len(Batches(make_images(96), 16, generator=seeded(), drop_last=True)) == 6


def test_a_batch_is_gather_augment_normalize_with_the_generator_in_that_order() -> None:
    images, augment = make_images(), Augment(2)
    first, _ = next(iter(Batches(images, 20, generator=seeded(), augment=augment)))
    generator = seeded()
    order = torch.randperm(103, generator=generator)
    choices = augment.choose(103, generator=generator)
    raw = augment(images.images[order[:20]], choices[:20])
    assert torch.equal(first, normalize(raw, images.mean, images.std))


@pytest.mark.parametrize("augment", [None, Augment(2)])
@pytest.mark.parametrize("taken", [0, 1, 3, 7])
def test_entering_in_the_middle_goes_on_with_the_same_bits(
    augment: Augment | None, taken: int
) -> None:
    generator = seeded()
    batches = Batches(make_images(), 16, generator=generator, augment=augment)
    list(batches)  # an epoch before
    state = generator.get_state()
    this, following = list(batches), list(batches)

    generator = seeded(99)
    generator.set_state(state)
    again = Batches(make_images(), 16, generator=generator, augment=augment)
    assert equal(list(again.epoch(start=taken)), this[taken:])
    assert equal(list(again), following)


def test_leaving_early_does_not_change_the_next_epoch() -> None:
    whole = Batches(make_images(), 16, generator=seeded(), augment=Augment(2))
    list(whole)
    broken = Batches(make_images(), 16, generator=seeded(), augment=Augment(2))
    for _ in broken:
        break
    assert equal(list(whole), list(broken))


def test_another_seed_is_another_epoch() -> None:
    a = list(Batches(make_images(), 16, generator=seeded(0), augment=Augment(2)))
    b = list(Batches(make_images(), 16, generator=seeded(1), augment=Augment(2)))
    c = list(Batches(make_images(), 16, generator=seeded(0), augment=Augment(2)))
    assert equal(a, c)
    assert not equal(a, b)


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(Batches(make_images(), 16, generator=seeded(), augment=Augment(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_set_is_never_written() -> None:
    images = make_images()
    before = images.fingerprint()
    list(Batches(images, 16, generator=seeded(), augment=Augment(2)))
    assert images.fingerprint() == before


def test_dtype_is_that_of_the_images() -> None:
    images, labels = next(iter(Batches(make_images(), 4, shuffle=False, dtype=torch.float64)))
    assert (images.dtype, labels.dtype) == (torch.float64, torch.int64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_means_the_same_batches_on_every_device() -> None:
    here = list(Batches(make_images(), 16, generator=seeded(), augment=Augment(2)))
    images = make_images().to("cuda")
    there = list(Batches(images, 16, generator=seeded(), augment=Augment(2)))
    for (x, y), (u, v) in zip(here, there, strict=True):
        assert u.device.type == v.device.type == "cuda"
        torch.testing.assert_close(x, u.cpu(), rtol=1e-6, atol=1e-6)
        assert torch.equal(y, v.cpu())


def test_refuses() -> None:
    images = make_images()
    with pytest.raises(ValueError, match="batch_size"):
        Batches(images, 0, generator=seeded())
    with pytest.raises(ValueError, match="batch_size"):
        Batches(images, 104, generator=seeded(), drop_last=True)
    with pytest.raises(ValueError, match="need a generator"):
        Batches(images, 4)
    with pytest.raises(ValueError, match="need a generator"):
        Batches(images, 4, shuffle=False, augment=Augment())
    for start in (-1, 8):
        with pytest.raises(ValueError, match="start"):
            Batches(images, 16, generator=seeded()).epoch(start)
