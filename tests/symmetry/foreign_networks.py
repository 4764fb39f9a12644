"""Networks in styles we do not control, each with an example of its input."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FunctionalMLP(nn.Module):
    """Functional activations, a view in place of Flatten, a module used for its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 7), nn.Linear(7, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.fc1(x)), 0.5, self.training)
        x = F.leaky_relu(self.fc2(x), 0.1)
        return F.log_softmax(self.fc3(x), dim=1)


class BasicBlock(nn.Module):
    """As in torchvision: post-activation, in-place relu used twice, downsampling shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: pad channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv0(x))
        out = F.relu(self.conv1(x)) + F.pad(x, (0, 0, 0, 0, 2, 2))
        return self.fc(out.mean(dim=(2, 3)))


class SqueezeExcite(nn.Module):
    """Depthwise and grouped convolutions around a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 6, 1)
        self.bn = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=4)
        self.fc1, self.fc2 = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.expand(x)))
        x = torch.relu(self.grouped(torch.relu(self.depthwise(x))))
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate).mean((2, 3))


class ResidualMLP(nn.Module):
    """A residual stream without normalization: four producers, four consumers, one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 5)
        self.up = nn.ModuleList(nn.Linear(5, 8) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(8, 5) for _ in range(3))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(F.relu(up(x)))
        return self.head(x)


class Transformer(nn.Module):
    """Embedding, LayerNorm, attention by hand, SwiGLU, layer scale, a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.RMSNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.rand(8))
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position
        h = self.norm1(x)
        scores = torch.softmax(self.q(h) @ self.k(h).transpose(-2, -1) / 8**0.5, dim=-1)
        x = x + self.scale * self.out(scores @ self.v(h))
        h = self.norm2(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(x.mean(dim=1))


class RawParameters(nn.Module):
    """No layers at all: products with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))
        self.w2, self.b2 = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(5))
        self.w3 = nn.Parameter(torch.randn(5, 2))
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x @ self.w1 + self.b1) * self.gain
        x = F.linear(x, self.w2, self.b2).relu()
        return torch.matmul(2 * x, self.w3) / 3


class Autoencoder(nn.Module):
    """Transposed convolutions, PReLU by channel, reshapes there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.PReLU(4), nn.Conv2d(4, 6, 3, 2, 1), nn.PReLU()
        )
        self.squeeze = nn.Linear(24, 7)
        self.expand = nn.Linear(7, 24)
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.encode(x).flatten(1)
        x = self.expand(self.squeeze(x)).relu()
        return self.decode(x.reshape(-1, 6, 2, 2))


class Sequence(nn.Module):
    """Convolutions over time beside linear layers over channels, axes exchanged between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.conv = nn.Conv1d(4, 5, 3, padding=1)
        self.pool = nn.AvgPool1d(2)
        self.norm = nn.GroupNorm(1, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc(x)).transpose(1, 2)
        x = F.relu(self.norm(self.pool(self.conv(x)))).permute(0, 2, 1)
        return self.head(x).amax(1)


def tanh_mlp() -> nn.Module:
    clip = nn.Hardtanh(-2.0, 2.0)
    return nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), clip, nn.Linear(6, 7), nn.Linear(7, 2)
    )


def nested_cnn() -> nn.Module:
    def block(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.Sequential(nn.ReLU()))

    features = nn.Sequential(block(3, 4), nn.MaxPool2d(2), nn.ReflectionPad2d(1), block(4, 5))
    head = nn.Sequential(nn.Linear(180, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(features, nn.Flatten(), nn.BatchNorm1d(180), head, nn.Linear(6, 2))


def gelu_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, 2))


def _tokens() -> Tensor:
    return torch.arange(10).reshape(2, 5)


# Name: network, example, number of groups to (scale, permute, flip) in eval mode.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, int, int]]] = {
    "functional": (FunctionalMLP, lambda: torch.randn(6, 3, 4), (2, 2, 0)),
    "resnet": (ResNet, lambda: torch.randn(4, 3, 32, 32), (16, 6, 10)),
    "padded shortcut": (PaddedShortcut, lambda: torch.randn(4, 3, 6, 6), (2, 2, 0)),
    "squeeze-excite": (SqueezeExcite, lambda: torch.randn(4, 3, 6, 6), (5, 1, 1)),
    "residual mlp": (ResidualMLP, lambda: torch.randn(6, 6), (4, 4, 1)),
    "transformer": (Transformer, _tokens, (6, 4, 6)),
    "raw parameters": (RawParameters, lambda: torch.randn(6, 4), (3, 2, 1)),
    "autoencoder": (Autoencoder, lambda: torch.randn(4, 1, 8, 8), (5, 4, 1)),
    "sequence": (Sequence, lambda: torch.randn(4, 6, 3), (2, 2, 0)),
    "tanh": (tanh_mlp, lambda: torch.randn(6, 4), (1, 3, 3)),
    "nested": (nested_cnn, lambda: torch.randn(6, 3, 8, 8), (5, 3, 2)),
    "gelu": (gelu_mlp, lambda: torch.randn(6, 4), (0, 2, 0)),
}


def build(name: str) -> tuple[nn.Module, Any]:
    """A float64 network in eval mode whose biases, gains and statistics are not trivial."""
    make, example, _ = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().double(), example()
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.6)
    for _ in range(3):
        model(x)  # moves running statistics
    return model.eval(), x
