"""Every purpose has a stream of random numbers of its own, and no two of them know each other."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch

import flatmin
from flatmin._streams import seed_for, stream
from flatmin.analysis.sources import load_batches
from flatmin.data import ImageSet, load_digits, normalize
from flatmin.experiments.images._data import with_wrong_labels
from flatmin.train import TrainConfig
from flatmin.train.distributed import Team
from flatmin.train.fingerprint import plain
from flatmin.train.parts import cut, hold_out

SOURCE = Path(flatmin.__file__).parent

# The places that seed a generator by a bare number, and what for. Another one needs a purpose:
# `stream("purpose", …)`, or a sentence here that says why it cannot meet any of these.
BARE_SEEDS = {
    "_streams.py": "the one place that makes streams",
    "train/loop.py": "starts of training; user's seed",
    "train/_conditions.py": "starts of training; user's seed",
    "train/state.py": "order of batches; no order of few images says anything about a start",
    "train/parts.py": "what is held out, or evaluated: the same whatever the run's seed",
    "symmetry/evaluate.py": "random layers of a user's network, the same at each call",
    "experiments/images/_data.py": "which images a study takes, of more than it splits",
    "experiments/toy/_study.py": "starts; its numbers come from seed_for",
    "experiments/scaling/_rescaled_copies.py": "starts; its numbers come from seed_for",
    "experiments/scaling/_walk.py": "points and factors from one stream, one after the other",
    "experiments/scaling/fig2_logits.py": "which points are shown",
    "experiments/toy/fig6_toy_data.py": "points, nothing else is random",
    "data/example_set.py": "an example's own draws; its numbers come from the run's generator",
    "train/named.py": "a user's function that makes a network, as documented",
    "optim/_state.py": "names a type whose state it keeps, and makes none",
    "analysis/own_draws.py": "a loader's own generators, from seed_for, put back afterwards",
    "data/digits.py": "scikit-learn's split, by another generator",
}


def seeded_by_hand(source: str) -> bool:
    """Whether code seeds a source of random numbers itself."""
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        if name in {"manual_seed", "manual_seed_all", "default_rng", "RandomState", "seed_all"}:
            return True
        if isinstance(node, ast.keyword) and node.arg == "random_state":
            return True
    return False


def test_no_other_file_seeds_by_a_bare_number() -> None:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    found = {name for name, path in files.items() if seeded_by_hand(path.read_text())}
    assert not found - set(BARE_SEEDS)


def test_a_name_is_a_stream() -> None:
    names = [(purpose, seed) for purpose in ("a", "b", "a1") for seed in (0, 1, "0", 10)]
    assert len({seed_for(*name) for name in names}) == len(names)
    draws = [torch.randn(1000, generator=stream(*name)) for name in names]
    assert torch.equal(draws[0], torch.randn(1000, generator=stream(*names[0])))
    draws += [torch.randn(1000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    related = torch.corrcoef(torch.stack(draws)).fill_diagonal_(0.0).abs().max()
    assert related < 5 / math.sqrt(1000)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("validation", [0, 287, 1000])
def test_every_part_has_its_share_of_wrong_labels(validation: int, seed: int) -> None:
    """What is trained on, held out, evaluated, and seen first in the first epoch."""
    share = 0.4
    train, test = load_digits()
    noisy = with_wrong_labels(train, share, seed)
    config = TrainConfig(validation=validation, evaluate_train=300, model="wrn-10-1")

    def parts(images: ImageSet) -> dict[str, ImageSet]:
        found = cut(config, (images, test), Team())
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(found["batches"]), generator=generator)
        return {**found, "first": found["batches"].subset(order[:300])}

    clean = parts(train)
    wrong = {name: part.labels != clean[name].labels for name, part in parts(noisy).items()}
    assert not wrong.pop("test").any()
    for name, labels in wrong.items():
        error = math.sqrt(share * (1 - share) / len(labels))
        assert abs(labels.double().mean().item() - share) < 3 * error, name


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_measured_was_trained_on(seed: int) -> None:
    train, test = load_digits()
    rest, held_out = hold_out(train, 700)
    assert held_out is not None
    run = {
        "config": plain(TrainConfig(model="wrn-10-1", validation=700)),
        "network": {"first": [1, 1, 3, 3]},
        "data": [part.fingerprint() for part in (train, test)],
    }

    def taken(part: str, fingerprint: dict[str, object] | None) -> torch.Tensor:
        batches, facts = load_batches(
            None,
            dataset="cifar10",
            part=part,
            examples=200,
            batch_size=200,
            seed=seed,
            fingerprint=fingerprint,
        )
        assert facts["seen_in_training"] is (None if fingerprint is None else True)
        inputs = batches[0][0]
        assert isinstance(inputs, torch.Tensor)
        return inputs

    def share(images: torch.Tensor, of: ImageSet) -> float:
        known = {image.tobytes() for image in normalize(of.images, of.mean, of.std).numpy()}
        return sum(image.tobytes() in known for image in images.numpy()) / len(images)

    assert share(taken("train", run), rest) == 1.0
    # Without a checkpoint nobody knows of a held-out part: it has its share, and no more.
    error = math.sqrt(0.25 / 200)
    assert abs(share(taken("train", None), held_out) - 700 / len(train)) < 3 * error
    assert share(taken("test", run), test) == 1.0
