"""The single-column ImageNet networks: no groups. Images are (N, 3, H, W), logits (N, classes)."""

from torch import Tensor, nn

from torch_ref.layers import CeilConv2d, Dropout
from torch_ref.lrn import LocalResponseNorm
from torch_ref.network import Network


class SingleColumn(Network):
    """The paper's widths in one column, as in the notebook that this project began from.

    LRN over 2 channels (the value itself and its left neighbour), dropout after the ReLU, and maps of any size
    averaged to 6 x 6, so one set of weights serves every image size.
    """

    def __init__(self, classes: int, image_size: tuple[int, int], *, dropout: float) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.lrn1 = LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1)
        self.pool2 = nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        height, width = self.map_size()
        self.fc6 = nn.Linear(256 * height * width, 4096)
        self.relu6 = nn.ReLU()
        self.drop6 = Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.drop7 = Dropout(dropout)
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.pool1(self.lrn1(self.relu1(self.conv1(images))))
        x = self.pool2(self.lrn2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = self.avgpool(x).flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)


class OneWeirdTrick(Network):
    """torchvision's ``alexnet``, after "One weird trick for parallelizing convolutional neural networks".

    No LRN; dropout comes before fc6 and fc7.
    """

    def __init__(self, classes: int, image_size: tuple[int, int], *, dropout: float) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 64, 11, stride=4, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(64, 192, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(256, 256, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        height, width = self.map_size()
        self.drop6 = Dropout(dropout)
        self.fc6 = nn.Linear(256 * height * width, 4096)
        self.relu6 = nn.ReLU()
        self.drop7 = Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = self.avgpool(x).flatten(1)
        x = self.relu6(self.fc6(self.drop6(x)))
        x = self.relu7(self.fc7(self.drop7(x)))
        return self.fc8(x)


class OneWeirdTrickLRN(Network):
    """cuda-convnet2's one-GPU ImageNet net (``layers-imagenet-1gpu.cfg``): the same widths, with LRN.

    LRN stands before the ReLU in layer 1 and after it in layer 2. Images are padded at the bottom and right
    only, so weights are not interchangeable with torchvision's.
    """

    def __init__(self, classes: int, image_size: tuple[int, int], *, dropout: float) -> None:
        super().__init__(image_size)
        self.conv1 = CeilConv2d(3, 64, 11, stride=4)
        self.lrn1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(64, 192, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(256, 256, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2, ceil_mode=True)
        height, width = self.map_size()
        self.fc6 = nn.Linear(256 * height * width, 4096)
        self.relu6 = nn.ReLU()
        self.drop6 = Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.drop7 = Dropout(dropout)
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        self.check_images(images)
        x = self.relu1(self.pool1(self.lrn1(self.conv1(images))))
        x = self.pool2(self.lrn2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = x.flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)
