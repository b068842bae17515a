"""How digits.caffemodel was made: the recipe of solver.prototxt, in torch.

    pip install torch==2.13.0 'ristretto-cli[demo]'
    python train.py

Takes some ten seconds on one core. The same seed gives the same weights on the same machine and torch; on
others the last bits, and with them the accuracy by an image or two, may differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_lmdb import split
from torch import nn
from torch.nn import functional as F

from ristretto_cli.wire.weights import write_weights

SEED = 1
SCALE = 0.0667
BATCH, ITERATIONS, STEP = 64, 1500, 1000
RATE, GAMMA, MOMENTUM, DECAY = 0.02, 0.1, 0.9, 0.0005


class Digits(nn.Module):
    """The net of train_val.prototxt. x (N, 1, 8, 8) to scores (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5, padding=2)
        self.conv2 = nn.Conv2d(12, 32, 3)
        self.ip1 = nn.Linear(32 * 2 * 2, 64)
        self.ip2 = nn.Linear(64, 10)
        for weight, bias in ((layer.weight, layer.bias) for layer in self.children()):
            bound = (3 / weight[0].numel()) ** 0.5  # Caffe's xavier filler: by fan-in alone
            nn.init.uniform_(weight, -bound, bound)
            nn.init.zeros_(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.relu(self.conv2(x))
        x = F.relu(self.ip1(x.flatten(1)))
        return self.ip2(x)


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images.astype(np.float32) * SCALE), torch.from_numpy(labels.astype(np.int64))


def train(net: Digits, images: torch.Tensor, labels: torch.Tensor) -> None:
    """SGD as Caffe's: biases learn at twice the rate, batches follow the order of the database, around."""
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    optimizer = torch.optim.SGD(
        [{"params": weights, "lr": RATE}, {"params": biases, "lr": 2 * RATE}],
        momentum=MOMENTUM,
        weight_decay=DECAY,
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, STEP, GAMMA)
    for iteration in range(ITERATIONS):
        rows = torch.arange(iteration * BATCH, (iteration + 1) * BATCH) % len(images)
        optimizer.zero_grad()
        F.cross_entropy(net(images[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def right(net: Digits, images: torch.Tensor, labels: torch.Tensor) -> int:
    """How many images the net names rightly."""
    return int((net(images).argmax(1) == labels).sum())


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    data = {name: tensors(*arrays) for name, arrays in split().items()}
    net = Digits()
    train(net, *data["train"])
    for name, arrays in data.items():
        hits, count = right(net, *arrays), len(arrays[0])
        print(f"{name}: {hits} of {count} right, {hits / count:.4f}")
    # Both hold a convolution as (outputs, inputs, height, width) and an inner product as (outputs, inputs).
    write_weights(
        Path(__file__).resolve().parent / "digits.caffemodel",
        {name: [layer.weight.detach().numpy(), layer.bias.detach().numpy()] for name, layer in net.named_children()},
    )


if __name__ == "__main__":
    main()
