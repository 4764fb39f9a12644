"""The facts of CIFAR-10 and CIFAR-100 that reading them needs."""

from dataclasses import dataclass

from flatmin.data._download import Archive

SITE = "https://www.cs.toronto.edu/~kriz"
_CLASSES10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CLASSES100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells the two data sets apart: names in files, bytes before the pixels, constants."""

    name: str
    classes: tuple[str, ...]
    parquet_label: str
    pickle_label: str
    label_bytes: int
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    archives: tuple[str, ...]
    official: Archive
    binary: Archive
    mean: tuple[float, ...]
    std: tuple[float, ...]


CIFAR10 = Kind(
    name="CIFAR-10",
    classes=tuple(_CLASSES10.split()),
    parquet_label="label",
    pickle_label="labels",
    label_bytes=1,
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_files=("test_batch",),
    archives=("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    official=Archive(
        f"{SITE}/cifar-10-python.tar.gz",
        size=170_498_071,
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    binary=Archive(
        f"{SITE}/cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
CIFAR100 = Kind(
    name="CIFAR-100",
    classes=tuple(_CLASSES100.split()),
    parquet_label="fine_label",
    pickle_label="fine_labels",
    label_bytes=2,
    train_files=("train",),
    test_files=("test",),
    archives=("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
    official=Archive(
        f"{SITE}/cifar-100-python.tar.gz",
        size=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    binary=Archive(
        f"{SITE}/cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)
