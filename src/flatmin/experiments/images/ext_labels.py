"""Right labels and wrong ones: does sharpness awareness help a network that learns by heart?

Claim: On another data set, harder to train, a greater difference between the optimizers could be
seen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flatmin.compare import compare
from flatmin.compare.processes import usual_workers
from flatmin.compare.statistics import mean, paired, signed, subtract
from flatmin.experiments import _compared as compared
from flatmin.experiments.images._data import ImageOptions
from flatmin.experiments.images._labels import Labels
from flatmin.record.files import write_atomically
from flatmin.record.item import Table, Verdict
from flatmin.record.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FITS = 95.0  # percent of its training labels, below which a base has learnt too little by heart


@dataclass(frozen=True, kw_only=True)
class Config(ImageOptions):
    """Few small images, and a network that is large enough for them."""

    shares: ClassVar = ("labels",)

    images: int | None = 5_000
    """Training images, a fifth of which is held out to choose by; none for all."""
    pixels: int = 16
    """Height and width that CIFAR is averaged down to: 32, 16 or 8. Digits have 8."""
    augment: bool = False
    """Whether training images are cropped at random and mirrored; labels that are wrong cannot be
    learnt by heart then."""
    noise: tuple[float, ...] = (0.0, 0.4)
    """Shares of the training labels that are replaced by another class at random."""
    model: str = "wrn-16-2"
    """Network: wrn-D-W, mlp-D-W or cnn."""
    precision: str = "bf16"
    """Floating type of the convolutions: bf16 (autocast) or fp32."""
    seeds: int = 5
    """Starts, each with its own batches; all arms share them."""
    epochs: int = 100
    """Passes over the training images."""
    trials: int = 6
    """Settings of learning rate and radius that are tried for each arm; two more follow."""
    device: str = "cpu"
    """Where to compute."""
    workers: int | None = None
    """Processes that make runs; none for one on each core or GPU."""

    def __post_init__(self) -> None:
        if not self.noise or list(self.noise) != sorted(set(self.noise)):
            raise ValueError(
                f"noise must be shares in increasing order, such as 0,0.4, got {self.noise}."
            )


FULL = Config()
QUICK = Config(
    images=300, test_images=200, model="wrn-10-1", precision="fp32", seeds=2, epochs=2, trials=1
)


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Compare at each share of wrong labels: SAM and ASAM with SGD, and SGD for twice as long."""
    images = ImageOptions(**{f.name: getattr(config, f.name) for f in fields(ImageOptions)})
    found = {}
    for share in progress(config.noise, "ext_labels: shares of wrong labels"):
        task = Labels(options=images, network=config.model, precision=config.precision, noise=share)
        # Beside the results, where finished runs are worth keeping: no machine does them again.
        folder = scratch.parent.parent / "labels" / name_of(share)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "task.py"
        write_atomically(file, task.file())
        record = compare(
            file,
            seeds=config.seeds,
            epochs=config.epochs,
            arms=("gradients", "sam", "asam"),
            trials=config.trials,
            out=folder,
            device=config.device,
            workers=config.workers or usual_workers(config.device),
        ).record
        kept = compared.kept(record)
        for arm, columns in record["arms"].items():
            kept["arms"][arm]["fit"] = columns["curves"]["running"][-1]
        found[name_of(share)] = kept
    return {"tasks": found, "noise": list(config.noise)}


def name_of(share: float) -> str:
    """The name of a task."""
    return f"wrong-{100 * share:g}"


def words(record: dict[str, Any]) -> dict[str, str]:
    """What each task is called."""
    return {
        name_of(share): f"{share:.0%} wrong labels" if share else "right labels"
        for share in record["numbers"]["noise"]
    }


def draw(record: dict[str, Any]) -> Figure:
    """The paired differences at each share of wrong labels."""
    return compared.figure(record["numbers"]["tasks"], words(record))


def answer(record: dict[str, Any]) -> str:
    """What is clear at each share of wrong labels, and how much would have been."""
    return compared.answer(record["numbers"]["tasks"], words(record))


def check(record: dict[str, Any]) -> list[Verdict]:
    """Whether each arm helps; whether more where labels are wrong; and the positive controls."""
    tasks = record["numbers"]["tasks"]
    shares = record["numbers"]["noise"]
    found = compared.verdicts(tasks, words(record))
    fits = {name: task["arms"]["base"]["fit"] for name, task in tasks.items()}
    known = [value for value in fits.values() if value is not None]
    found.append(
        Verdict(
            f"The base fits its training labels (above {FITS:g} %), also the wrong ones: there is "
            "something for a flat minimum to mend",
            "not asked",
            "; ".join(
                f"{words(record)[name]}: {'–' if value is None else f'{value:.1f} %'}"
                for name, value in fits.items()
            ),
            len(known) == len(fits) and min(known) > FITS,
            own=True,
        )
    )
    if len(shares) > 1 and shares[0] == 0.0:
        clean, hardest = tasks[name_of(shares[0])], tasks[name_of(shares[-1])]
        for arm in ("sam", "asam"):
            for at in ("epochs", "gradients"):
                growth = paired(_gains(hardest, arm, at), _gains(clean, arm, at))
                found.append(
                    Verdict(
                        f"{arm.upper()}'s gain is greater on the harder set: {shares[-1]:.0%} "
                        f"wrong labels against none (equal {at})",
                        "thought possible",
                        f"{signed(growth)} points" + ": undecided" * (growth.sign == 0),
                        None if growth.sign == 0 else growth.sign > 0,
                        own=at == "gradients",
                    )
                )
    return found


def tables(record: dict[str, Any]) -> list[Table]:
    """The accuracy of each arm with what was chosen for it, and the differences."""
    tasks = record["numbers"]["tasks"]
    found = compared.tables(tasks, words(record), "accuracy in %")
    rows = [
        [words(record)[name], arm, columns["epochs"], columns["fit"], str(mean(columns["value"]))]
        for name, task in tasks.items()
        for arm, columns in task["arms"].items()
    ]
    header = ("labels", "arm", "epochs", "train", "test")
    title = "What is learnt by heart: accuracy in % on the training labels, while training in the "
    return [*found, Table(f"{title}last epoch, and on test images", header, rows)]


def notes(record: dict[str, Any]) -> list[str]:
    """How this was done, and what it cannot say."""
    config, tasks = record["config"], record["numbers"]["tasks"]
    facts = next(iter(tasks.values()))["task"]
    examples = facts["examples"]
    edges = [
        f"{arm} ({words(record)[name]})"
        for name, task in tasks.items()
        for arm, columns in task["arms"].items()
        if columns["at_edge"]
    ]
    commits = sorted({commit for task in tasks.values() for commit in task["commits"]})
    return [
        f"**Data and network.** {facts['source']}; {config['model']} with "
        f"{facts['parameters']:,} parameters; {examples['trained on']:,} images trained on, "
        f"{'cropped and mirrored' if config['augment'] else 'neither cropped nor mirrored'}, "
        f"{examples['held out']:,} held out, {examples['tested on']:,} tested on; "
        f"{config['epochs']} epochs. The report's network is wrn-28-10 with 36,479,194 parameters, "
        "trained for 50 epochs on all 50,000 images.",
        "**Wrong labels** are drawn evenly from the other classes, for a random share of the "
        "training images, the same for all seeds and arms; held-out labels are as wrong, for "
        "nobody would have better ones; test labels are right. That SAM helps there is known "
        "(Foret et al. 2021, section 3.3): the positive control of what is found on right labels.",
        "**How it was done**: by `flatmin compare`, SGD with momentum 0.9, weight decay 5e-4 and a "
        "cosine; starts and batches are shared by seed; learning rate and radius of each arm, of "
        "the longer base too, are chosen jointly on the held-out part with the same number of "
        "trials, at full length, from a start that is not counted; the last epoch counts.",
        compared.rule("half a point of accuracy"),
        *([f"**At the edge of the search** lie choices for {', '.join(edges)}."] if edges else []),
        f"Runs were made at commit {', '.join(commits)}.",
    ]


def _gains(task: dict[str, Any], arm: str, at: str) -> list[float | None]:
    """What an arm adds, seed by seed."""
    reference = next(
        row["reference"] for row in task["differences"] if row["arm"] == arm and row["at"] == at
    )
    return subtract(task["arms"][arm]["value"], task["arms"][reference]["value"])
