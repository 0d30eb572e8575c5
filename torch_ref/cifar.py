"""cuda-convnet's CIFAR-10 networks. Images are (N, 3, H, W), logits (N, classes).

All pools are 3 x 3 with stride 2 in ceil mode: their last window may hang over the bottom and right edge.
"""

from torch import Tensor, nn

from torch_ref.layers import ClippedAvgPool2d, LocalConv2d
from torch_ref.lrn import LocalResponseNorm, SpatialResponseNorm
from torch_ref.network import Network


class Cifar18Pct(Network):
    """``layers-18pct.cfg``: three convolutions, same-map normalisation, average pools; 18 % test error."""

    def __init__(self, classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.relu1 = nn.ReLU()
        self.rnorm1 = SpatialResponseNorm(3, alpha=5e-5, beta=0.75, k=1)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = ClippedAvgPool2d(3, 2)
        self.rnorm2 = SpatialResponseNorm(3, alpha=5e-5, beta=0.75, k=1)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.relu3 = nn.ReLU()
        self.pool3 = ClippedAvgPool2d(3, 2)
        height, width = self.map_size()
        self.fc10 = nn.Linear(64 * height * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.rnorm1(self.relu1(self.pool1(self.conv1(images))))
        x = self.rnorm2(self.pool2(self.relu2(self.conv2(x))))
        x = self.pool3(self.relu3(self.conv3(x)))
        return self.fc10(x.flatten(1))


class Cifar80Sec(Network):
    """``layers-80sec.cfg``: three convolutions and a hidden layer, no normalisation; 26 % test error in 80 s."""

    def __init__(self, classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = ClippedAvgPool2d(3, 2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.relu3 = nn.ReLU()
        self.pool3 = ClippedAvgPool2d(3, 2)
        height, width = self.map_size()
        self.fc64 = nn.Linear(64 * height * width, 64)
        self.relu4 = nn.ReLU()
        self.fc10 = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.pool3(self.relu3(self.conv3(x)))
        x = self.relu4(self.fc64(x.flatten(1)))
        return self.fc10(x)


class Cifar13Pct(Network):
    """``layers-conv-local-13pct.cfg``: two convolutions and two local layers; 13 % with crops and flips."""

    def __init__(self, classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.local3 = LocalConv2d(64, 32, 3, padding=1, map_size=self.map_size())
        self.relu3 = nn.ReLU()
        self.local4 = LocalConv2d(32, 32, 3, padding=1, map_size=self.map_size())
        self.relu4 = nn.ReLU()
        height, width = self.map_size()
        self.fc10 = nn.Linear(32 * height * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.local3(x))
        x = self.relu4(self.local4(x))
        return self.fc10(x.flatten(1))


class Cifar11Pct(Network):
    """``layers-conv-local-11pct.cfg``: `Cifar13Pct` with LRN before each pool; 11 % with crops and flips."""

    def __init__(self, classes: int, image_size: tuple[int, int]) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.lrn1 = LocalResponseNorm(5, alpha=1e-3, beta=0.75, k=1)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(5, alpha=1e-3, beta=0.75, k=1)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.local3 = LocalConv2d(64, 32, 3, padding=1, map_size=self.map_size())
        self.relu3 = nn.ReLU()
        self.local4 = LocalConv2d(32, 32, 3, padding=1, map_size=self.map_size())
        self.relu4 = nn.ReLU()
        height, width = self.map_size()
        self.fc10 = nn.Linear(32 * height * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.pool1(self.lrn1(self.relu1(self.conv1(images))))
        x = self.pool2(self.lrn2(self.relu2(self.conv2(x))))
        x = self.relu3(self.local3(x))
        x = self.relu4(self.local4(x))
        return self.fc10(x.flatten(1))
