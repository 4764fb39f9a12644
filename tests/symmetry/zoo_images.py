"""Convolutional networks in current styles."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_parts import Conv, Entry, Lin, Net, Relu, Seq, images, param, sequences


def convolutional(n: Any, x: Tensor) -> Tensor:
    return n.head(F.relu(n.norm(n.conv(x))).mean((2, 3)))


IMAGES: dict[str, Entry] = {
    "convolutions": (
        lambda: Seq(
            Conv(2, 3, 3, padding=1),
            Relu(),
            nn.MaxPool2d(2),
            Conv(3, 4, 3),
            nn.Flatten(),
            Lin(4, 2),
        ),
        images(),
    ),
    "flattened": (
        lambda: Seq(Conv(2, 3, 3), Relu(), nn.AvgPool2d(2), nn.Flatten(), Lin(12, 2)),
        images(),
    ),
    "with batch norm": (
        lambda: Net(
            convolutional, conv=Conv(2, 3, 3, bias=False), norm=nn.BatchNorm2d(3), head=Lin(3, 2)
        ),
        images(),
    ),
    "functional batch norm": (
        lambda: Net(
            lambda n, x: n.head(
                F.relu(
                    F.batch_norm(
                        n.conv(x), n.n.running_mean, n.n.running_var, n.n.weight, n.n.bias, False
                    )
                ).mean((2, 3))
            ),
            conv=Conv(2, 3, 3),
            n=nn.BatchNorm2d(3),
            head=Lin(3, 2),
        ),
        images(),
    ),
    "batch norm without gain": (
        lambda: Net(
            convolutional, conv=Conv(2, 3, 3), norm=nn.BatchNorm2d(3, affine=False), head=Lin(3, 2)
        ),
        images(),
    ),
    "group norm": (
        lambda: Net(convolutional, conv=Conv(2, 4, 3), norm=nn.GroupNorm(2, 4), head=Lin(4, 2)),
        images(),
    ),
    "instance norm": (
        lambda: Net(
            convolutional,
            conv=Conv(2, 3, 3),
            norm=nn.InstanceNorm2d(3, affine=True),
            head=Lin(3, 2),
        ),
        images(),
    ),
    "shortcut": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(
                    F.relu(n.n2(n.c2(F.relu(n.n1(n.c1(h))))) + n.n3(n.short(h))).mean((2, 3))
                )
            )(F.relu(n.n0(n.stem(x)))),
            stem=Conv(2, 3, 3, padding=1, bias=False),
            n0=nn.BatchNorm2d(3),
            c1=Conv(3, 4, 3, stride=2, padding=1, bias=False),
            n1=nn.BatchNorm2d(4),
            c2=Conv(4, 4, 3, padding=1, bias=False),
            n2=nn.BatchNorm2d(4),
            short=Conv(3, 4, 1, stride=2, bias=False),
            n3=nn.BatchNorm2d(4),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "padded shortcut": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head((F.relu(n.b(h)) + F.pad(h, (0, 0, 0, 0, 1, 1))).mean((2, 3)))
            )(F.relu(n.a(x))),
            a=Conv(2, 2, 3, padding=1),
            b=Conv(2, 4, 3, padding=1),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "dense": (
        lambda: Net(
            lambda n, x: (lambda h: n.head(torch.cat([h, F.relu(n.b(h))], 1).mean((2, 3))))(
                torch.cat([x, F.relu(n.a(x))], 1)
            ),
            a=Conv(2, 3, 3, padding=1),
            b=Conv(5, 3, 3, padding=1),
            head=Lin(8, 2),
        ),
        images(),
    ),
    "inception": (
        lambda: Net(
            lambda n, x: n.head(
                torch.cat([F.relu(n.a(x)), F.relu(n.b(x)), F.max_pool2d(x, 3, 1, 1)], 1).mean(
                    (2, 3)
                )
            ),
            a=Conv(2, 2, 1),
            b=Conv(2, 3, 3, padding=1),
            head=Lin(7, 2),
        ),
        images(),
    ),
    "squeeze and expand": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(torch.cat([F.relu(n.b(h)), F.relu(n.c(h))], 1).amax((2, 3)))
            )(F.relu(n.a(x))),
            a=Conv(2, 2, 1),
            b=Conv(2, 3, 1),
            c=Conv(2, 3, 3, padding=1),
            head=Lin(6, 2),
        ),
        images(),
    ),
    "depthwise": (
        lambda: Seq(
            Conv(2, 4, 1),
            Relu(),
            Conv(4, 4, 3, groups=4),
            Relu(),
            Conv(4, 3, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            Lin(3, 2),
        ),
        images(),
    ),
    "depthwise, relu6": (
        lambda: Seq(
            Conv(2, 4, 1),
            nn.ReLU6(),
            Conv(4, 4, 3, groups=4),
            nn.ReLU6(),
            Conv(4, 3, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            Lin(3, 2),
        ),
        lambda: 30 * torch.randn(2, 2, 6, 6),
    ),
    "grouped and shuffled": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(
                    F.relu(n.b(h.view(2, 2, 2, 6, 6).transpose(1, 2).reshape(2, 4, 6, 6))).mean(
                        (2, 3)
                    )
                )
            )(F.relu(n.a(x))),
            a=Conv(2, 4, 3, padding=1, groups=2),
            b=Conv(4, 4, 3, groups=2),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "squeeze and excite": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(
                    (h * torch.sigmoid(n.up(F.relu(n.down(h.mean((2, 3), keepdim=True)))))).mean(
                        (2, 3)
                    )
                )
            )(F.relu(n.a(x))),
            a=Conv(2, 4, 3),
            down=Conv(4, 2, 1),
            up=Conv(2, 4, 1),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "interpolated": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(
                    torch.cat(
                        [
                            F.interpolate(
                                F.relu(n.b(F.max_pool2d(h, 2))), scale_factor=2.0, mode="bilinear"
                            ),
                            h,
                        ],
                        1,
                    )
                )
            )(F.relu(n.a(x))),
            a=Conv(2, 3, 3, padding=1),
            b=Conv(3, 4, 3, padding=1),
            head=Conv(7, 1, 1),
        ),
        images(),
    ),
    "nearest neighbor": (
        lambda: Seq(Conv(2, 3, 3), Relu(), nn.Upsample(scale_factor=2), Conv(3, 1, 3)),
        images(),
    ),
    "transposed": (
        lambda: Seq(
            Conv(2, 3, 3, stride=2),
            Relu(),
            nn.ConvTranspose2d(3, 4, 2, 2),
            Relu(),
            nn.ConvTranspose2d(4, 2, 2, groups=2),
        ),
        images(),
    ),
    "pixel shuffle": (
        lambda: Seq(Conv(2, 8, 3), nn.PixelShuffle(2), Relu(), Conv(2, 1, 3)),
        images(),
    ),
    "split in a block": (
        lambda: Net(
            lambda n, x: (lambda a, b: n.head(torch.cat([a, F.relu(n.b(b) + a)], 1).mean((2, 3))))(
                *F.relu(n.a(x)).split(2, 1)
            ),
            a=Conv(2, 4, 3),
            b=Conv(2, 2, 3, padding=1),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "modern convolutions": (
        lambda: Net(
            lambda n, x: (
                lambda h: n.head(
                    (
                        h
                        + n.gamma
                        * n.down(
                            F.gelu(n.up(n.norm(n.deep(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))))
                        )
                    ).mean((1, 2))
                )
            )(n.stem(x).permute(0, 2, 3, 1)),
            stem=Conv(2, 4, 2, 2),
            deep=Conv(4, 4, 3, padding=1, groups=4),
            norm=nn.LayerNorm(4),
            up=Lin(4, 6),
            down=Lin(6, 4),
            gamma=param(4),
            head=Lin(4, 2),
        ),
        images(),
    ),
    "standardized convolutions": (
        lambda: Net(
            lambda n, x: n.head(
                F.relu(
                    F.conv2d(
                        x,
                        (
                            lambda w: (
                                n.gain
                                * (w - w.mean((1, 2, 3), keepdim=True))
                                / (w.var((1, 2, 3), keepdim=True) + 1e-3).sqrt()
                            )
                        )(n.a.weight),
                        n.a.bias,
                    )
                ).mean((2, 3))
            ),
            a=Conv(2, 3, 3),
            gain=param(3, 1, 1, 1),
            head=Lin(3, 2),
        ),
        images(),
    ),
    "over time": (
        lambda: Net(
            lambda n, x: n.head(F.relu(n.b(F.pad(F.relu(n.a(x.mT)), (2, 0)))).mean(-1)),
            a=nn.Conv1d(4, 3, 2),
            b=nn.Conv1d(3, 4, 3),
            head=Lin(4, 2),
        ),
        sequences(4, 5),
    ),
}
