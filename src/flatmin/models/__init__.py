"""The networks of the report: a small perceptron, a small CNN and the wide residual network."""

from flatmin.models.cnn import ReportCNN
from flatmin.models.mlp import ReportMLP
from flatmin.models.wide_resnet import WideResNet

__all__ = ["ReportCNN", "ReportMLP", "WideResNet"]
