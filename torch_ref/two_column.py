"""The two-column networks: the paper's, the released code's and Caffe's two.

All have the same weights' shapes. The columns (one GPU each in 2012) are the two groups of conv2, conv4 and
conv5; conv3 and the fully connected layers see both. Images are (N, 3, H, W), logits (N, classes).
"""

from torch import Tensor, nn

from torch_ref.layers import CeilConv2d, Dropout
from torch_ref.lrn import LocalResponseNorm, SpatialResponseNorm
from torch_ref.network import Network


class TwoColumn(Network):
    """Krizhevsky, Sutskever and Hinton 2012, section 3.5 and figure 2.

    224 x 224 images give 55 x 55 maps only with ceil-mode arithmetic, as in the released code. LRN as in
    section 3.3: alpha is not divided by the window. Its windows stay inside a column unless `span_columns`.
    """

    def __init__(
        self, classes: int, image_size: tuple[int, int], *, dropout: float, span_columns: bool = False
    ) -> None:
        super().__init__(image_size)
        columns = 1 if span_columns else 2
        self.conv1 = CeilConv2d(3, 96, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.lrn1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2, divide_by_size=False, columns=columns)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2, divide_by_size=False, columns=columns)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
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
        x = self.pool1(self.lrn1(self.relu1(self.conv1(images))))
        x = self.pool2(self.lrn2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = x.flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)


class CudaConvnet2012(Network):
    """Net 145 of the released 2012 code (``layers/layers-145.cfg``), the one behind the paper's figures.

    Differs from the paper: LRN's alpha is divided by the window, layer 1 normalises and pools before its ReLU,
    layer 2 has a same-map normalisation after LRN. That norm's kernel is not released: k = 1 is assumed.
    """

    def __init__(
        self, classes: int, image_size: tuple[int, int], *, dropout: float, span_columns: bool = False
    ) -> None:
        super().__init__(image_size)
        columns = 1 if span_columns else 2
        self.conv1 = CeilConv2d(3, 96, 11, stride=4)
        self.lrn1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2, columns=columns)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2, columns=columns)
        self.rnorm2 = SpatialResponseNorm(5, alpha=1e-3, beta=0.75, k=1)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
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
        x = self.pool2(self.rnorm2(self.lrn2(self.relu2(self.conv2(x)))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = x.flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)


class CaffeAlexNet(Network):
    """BVLC Caffe's ``bvlc_alexnet``: the paper's order, 227 x 227 images, LRN with k = 1 over all channels."""

    def __init__(self, classes: int, image_size: tuple[int, int], *, dropout: float) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.lrn1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.lrn2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
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
        x = self.pool1(self.lrn1(self.relu1(self.conv1(images))))
        x = self.pool2(self.lrn2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = x.flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)


class CaffeNet(Network):
    """BVLC Caffe's ``bvlc_reference_caffenet``: as `CaffeAlexNet`, but pooling comes before LRN."""

    def __init__(self, classes: int, image_size: tuple[int, int], *, dropout: float) -> None:
        super().__init__(image_size)
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.lrn1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.lrn2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
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
        x = self.lrn1(self.pool1(self.relu1(self.conv1(images))))
        x = self.lrn2(self.pool2(self.relu2(self.conv2(x))))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.conv4(x))
        x = self.pool5(self.relu5(self.conv5(x)))
        x = x.flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        x = self.drop7(self.relu7(self.fc7(x)))
        return self.fc8(x)
