"""The networks of the report, small and wide, and a perceptron that trains fast."""

from flatmin.models.cnn import ReportCNN
from flatmin.models.mlp import ReportMLP
from flatmin.models.perceptron import Perceptron
from flatmin.models.wide_resnet import WideResNet

__all__ = ["Perceptron", "ReportCNN", "ReportMLP", "WideResNet"]
