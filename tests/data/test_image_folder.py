"""Images of one's own: what is in the folders comes out, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import encode, write_folder

from flatmin.cli import main
from flatmin.data import load_image_folder
from flatmin.data.image_set import channel_statistics

Images = dict[str, np.ndarray]


def make(shape: tuple[int, ...] = (3, 8, 8)) -> Images:
    """Random images by file name, two classes."""
    random = np.random.default_rng(0)
    names = [
        f"{split}/{kind}/{n}.png" for split in ("train", "test") for kind in "ba" for n in "21"
    ]
    return {name: random.integers(0, 256, shape, dtype=np.uint8) for name in names}


def write(folder: Path, images: Images) -> Path:
    for name, image in images.items():
        path = folder / name
        write_folder(path.parent, {path.name: encode(image)})
    return folder


def test_images_come_out_as_they_were(tmp_path: Path) -> None:
    images = make()
    write(tmp_path, images)
    (tmp_path / "train" / "a" / ".hidden").write_text("nothing")
    train, test = load_image_folder(tmp_path)
    assert train.classes == test.classes == ("a", "b")
    assert train.labels.tolist() == test.labels.tolist() == [0, 0, 1, 1]
    for split, part in (("train", train), ("test", test)):
        names = [f"{split}/{kind}/{n}.png" for kind in "ab" for n in "12"]
        assert part.images.numpy().tolist() == [images[name].tolist() for name in names]
        assert (part.mean, part.std) == channel_statistics(train.images)


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    gray = make((8, 8))
    train, _ = load_image_folder(write(tmp_path / "gray", gray))
    assert train.images.shape == (4, 1, 8, 8)
    assert train.images[0, 0].tolist() == gray["train/a/1.png"].tolist()
    mixed = {**gray, "test/b/2.png": make()["test/b/2.png"]}
    train, test = load_image_folder(write(tmp_path / "mixed", mixed))
    assert train.images.shape == test.images.shape == (4, 3, 8, 8)
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train does not exist; put images into"):
        load_image_folder(tmp_path)
    folder = write(tmp_path / "own", make())
    (folder / "train" / "c").mkdir()
    with pytest.raises(ValueError, match="train/c holds no images"):
        load_image_folder(folder)
    write(folder, {"train/c/1.png": make()["test/b/2.png"]})
    with pytest.raises(ValueError, match="must hold the same classes, and c is in one"):
        load_image_folder(folder)
    write(folder, {"test/c/1.png": make((3, 8, 7))["test/b/2.png"]})
    with pytest.raises(ValueError, match=r"c/1.png has 7 × 8 pixels, and .*a/1.png has 8 × 8"):
        load_image_folder(folder)
    (folder / "test" / "c" / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"c/1.png is no PNG or JPEG image"):
        load_image_folder(folder)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--dataset", "folder", "--data", str(write(tmp_path, make()))]
    small = ["--set", "model=wrn-10-1", "epochs=1", "evaluate_train=0", "crop_padding=1"]
    assert main([*words, *small]) == 0
    assert "epoch 1: accuracy test" in capsys.readouterr().out
    assert main([*words, *small, "--download"]) == 2
    assert "--download is for CIFAR" in capsys.readouterr().err
