"""The nets that are trained in benchmarks, as anybody would write them for PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

Module: TypeAlias = Any  # torch may be missing where types are checked


def lenet() -> Module:
    """LeNet as Caffe has it: two convolutions, two layers of neurons."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(inplace=True),
        nn.Linear(500, 10),
    )


def cifar10_full() -> Module:
    """CIFAR-10 full: three convolutions, with response normalization over neighbours within a channel."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(inplace=True),
        _WithinChannel(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        _WithinChannel(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


def resnet20() -> Module:
    """ResNet-20 for CIFAR-10: nine blocks of two convolutions."""
    blocks = [_Block(16, 16, 1) for _ in range(3)]
    blocks += [_Block(16, 32, 2), _Block(32, 32, 1), _Block(32, 32, 1)]
    blocks += [_Block(32, 64, 2), _Block(64, 64, 1), _Block(64, 64, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        *blocks,
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class _WithinChannel(nn.Module):  # type: ignore[misc, unused-ignore]
    """x / (1 + alpha * mean of squares in a window of 3x3) ^ 0.75."""

    def forward(self, x: Any) -> Any:
        return x * (1 + 5e-5 * functional.avg_pool2d(x * x, 3, 1, 1)) ** -0.75


class _Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two convolutions beside a shortcut, which is a convolution of its own where the maps get smaller."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: Any = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


def plain_loop(net: Module, data: Any, label: Any, iterations: int) -> Callable[[], object]:
    """What trains a net for some iterations on one batch, with momentum and weight decay."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    inputs, labels = torch.from_numpy(data), torch.from_numpy(label).long()

    def run() -> float:
        loss: Any = 0.0
        for _ in range(iterations):
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(inputs), labels)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return run
