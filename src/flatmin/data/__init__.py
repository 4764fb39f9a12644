"""The toy distribution, digits, CIFAR, data of one's own, and batches that live on a device."""

from flatmin.data._download import DownloadError
from flatmin.data.augment import Augment, normalize
from flatmin.data.batches import Batches
from flatmin.data.cifar import load_cifar10, load_cifar100
from flatmin.data.data_set import DataSet
from flatmin.data.digits import load_digits
from flatmin.data.example_set import ExampleSet, as_data_set
from flatmin.data.figure8 import figure8
from flatmin.data.image_folder import load_image_folder
from flatmin.data.image_set import ImageSet
from flatmin.data.tensor_set import TensorSet

__all__ = [
    "Augment",
    "Batches",
    "DataSet",
    "DownloadError",
    "ExampleSet",
    "ImageSet",
    "TensorSet",
    "as_data_set",
    "figure8",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_image_folder",
    "normalize",
]
