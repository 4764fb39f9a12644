"""No option is ignored: where another one is missing that gives it a meaning, it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatmin.cli import main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --resume", "--resume needs --out, the folder for checkpoints and log."),
        ("train --keep 2", "--keep needs --out"),
        ("train --tensorboard", "--tensorboard needs --out"),
        ("train --download", "--download needs --data, the folder of images."),
        ("train --dataset folder", "--dataset needs --data"),
        ("train --dataset cifar10", "--dataset needs --data"),
        ("train --dataset folder --data . --download", "--download is for CIFAR"),
        ("run fig1 --download", "--download needs --data, the folder to fetch into."),
        ("run all --download", "--download needs --data"),
        ("run ext_label_noise --quick --download", "--download needs --data"),
        ("measure torch.nn:Identity --dataset cifar100", "--dataset needs --data"),
        ("measure torch.nn:Identity --data torch:rand --part test", "--part is for folders"),
        ("measure torch.nn:Identity --data torch:rand --dataset cifar10", "--dataset is for f"),
    ],
)
def test_an_option_without_what_it_needs_is_refused(
    words: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith(f"flatmin: {sentence}")
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.slow
def test_with_what_it_needs_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--set", "model=wrn-10-1", "epochs=1", "evaluate_train=0", "batch_size=512"]
    assert main(["train", *small, "--out", "run", "--keep", "1", "--save-every", "1"]) == 0
    assert len(list(Path("run").glob("*.pt"))) == 1
    assert main(["train", *small, "--out", "run", "--resume"]) == 0
    capsys.readouterr()
