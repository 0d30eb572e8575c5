"""Every network as a table of layers, read top to bottom like the tables in the papers.

Plain data: no JAX here. `model.py` turns a table into a Flax module.

Sources, named beside each number that needs one:
    [P]  Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep CNNs", NeurIPS 2012
    [S]  the 2012 source released by the Computer History Museum, commit 2f8b81f
    [C2] cuda-convnet2 at 3238bf0; [C1] cuda-convnet at 3878e8f
    [K]  BVLC/caffe at 9b89154, models/bvlc_alexnet and models/bvlc_reference_caffenet
    [TV] torchvision's models/alexnet.py
    [SD] the notebook CNN/AlexNet.ipynb of Devlee247/PyTorch-Implementations at dd33994
"""

from dataclasses import replace

from jax_alexnet.layer_specs import (
    LRN,
    AdaptivePool,
    Conv,
    Dense,
    Dropout,
    Layer,
    LocalConv,
    Pool,
    Relu,
    SpatialNorm,
    Variant,
)


def _classifier(fc_std: float | None, fc8_std: float | None, bias: float, fc8_bias: float = 0.0):
    """fc6 to fc8 with dropout after each ReLU [P section 4.2]."""
    return (
        Dense("fc6", 4096, fc_std, bias), Relu("relu6"), Dropout("drop6"),
        Dense("fc7", 4096, fc_std, bias), Relu("relu7"), Dropout("drop7"),
        Dense("fc8", None, fc8_std, fc8_bias),
    )  # fmt: skip


# The blog's single column [SD]: floor everywhere, LRN of size 2, PyTorch's default initialisation.
_BLOG_LRN = {"size": 2, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "divide_by_size": True}
SINGLE_COLUMN = Variant(
    "single_column", "the blog's 96-256-384-384-256 network with LRN of size 2", 227, 10, "blog",
    (
        Conv("conv1", 96, 11, stride=4), Relu("relu1"), LRN("lrn1", **_BLOG_LRN), Pool("pool1", "max"),
        Conv("conv2", 256, 5, padding=2), Relu("relu2"), LRN("lrn2", **_BLOG_LRN), Pool("pool2", "max"),
        Conv("conv3", 384, 3, padding=1), Relu("relu3"),
        Conv("conv4", 384, 3, padding=1), Relu("relu4"),
        Conv("conv5", 256, 3, padding=1), Relu("relu5"), Pool("pool5", "max"), AdaptivePool("avgpool"),
        *_classifier(None, None, 0.0),
    ),
)  # fmt: skip

# The paper's two columns [P section 3.5]: alpha is not divided by the window, std 0.01 everywhere, bias 1 in
# conv2, conv4, conv5, fc6 and fc7 [P section 5]. 224 pixels give 55x55 maps as in the released code [S].
_PAPER_LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "divide_by_size": False, "columns": 2}
TWO_COLUMN = Variant(
    "two_column", "the paper's network in two columns", 224, 1000, "paper",
    (
        Conv("conv1", 96, 11, stride=4, ceil=True, std=0.01), Relu("relu1"),
        LRN("lrn1", **_PAPER_LRN), Pool("pool1", "max", ceil=True),
        Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=1.0), Relu("relu2"),
        LRN("lrn2", **_PAPER_LRN), Pool("pool2", "max", ceil=True),
        Conv("conv3", 384, 3, padding=1, std=0.01), Relu("relu3"),
        Conv("conv4", 384, 3, padding=1, groups=2, std=0.01, bias=1.0), Relu("relu4"),
        Conv("conv5", 256, 3, padding=1, groups=2, std=0.01, bias=1.0), Relu("relu5"),
        Pool("pool5", "max", ceil=True),
        *_classifier(0.01, 0.01, 1.0),
    ),
)  # fmt: skip

# layers/layers-145.cfg [S]. The base of the extra same-map norm is taken as 1 (its kernel was not released).
_CODE_LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "divide_by_size": True}
CUDA_CONVNET_2012 = Variant(
    "cuda_convnet_2012", "the original 2012 code's network 145", 224, 1000, "paper",
    (
        Conv("conv1", 96, 11, stride=4, ceil=True, std=0.01), LRN("lrn1", **_CODE_LRN, columns=2),
        Pool("pool1", "max", ceil=True), Relu("relu1"),
        Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=1.0), Relu("relu2"),
        LRN("lrn2", **_CODE_LRN, columns=2), SpatialNorm("rnorm2", 5, 1e-3, 0.75),
        Pool("pool2", "max", ceil=True),
        Conv("conv3", 384, 3, padding=1, std=0.03), Relu("relu3"),
        Conv("conv4", 384, 3, padding=1, groups=2, std=0.03, bias=1.0), Relu("relu4"),
        Conv("conv5", 256, 3, padding=1, groups=2, std=0.03, bias=1.0), Relu("relu5"),
        Pool("pool5", "max", ceil=True),
        *_classifier(0.01, 0.01, 1.0),
    ),
)  # fmt: skip


def _caffe(name: str, summary: str, bias: float, norm_first: bool) -> Variant:
    """Caffe's two nets [K]: LRN spans all channels with k=1; they differ in bias and in the order LRN, pool."""
    lrn = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "divide_by_size": True}

    def norm_and_pool(number: int) -> tuple[Layer, ...]:
        pair = LRN(f"lrn{number}", **lrn), Pool(f"pool{number}", "max", ceil=True)
        return pair if norm_first else pair[::-1]

    return Variant(
        name, summary, 227, 1000, "caffe",
        (
            Conv("conv1", 96, 11, stride=4, std=0.01), Relu("relu1"), *norm_and_pool(1),
            Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=bias), Relu("relu2"), *norm_and_pool(2),
            Conv("conv3", 384, 3, padding=1, std=0.01), Relu("relu3"),
            Conv("conv4", 384, 3, padding=1, groups=2, std=0.01, bias=bias), Relu("relu4"),
            Conv("conv5", 256, 3, padding=1, groups=2, std=0.01, bias=bias), Relu("relu5"),
            Pool("pool5", "max", ceil=True),
            *_classifier(0.005, 0.01, bias),
        ),
    )  # fmt: skip


# bvlc_alexnet lowered the biases of 1 to 0.1 because 1 left the loss flat [K].
CAFFE_ALEXNET = _caffe("caffe_alexnet", "Caffe's bvlc_alexnet: LRN, then pooling", 0.1, norm_first=True)
CAFFENET = _caffe("caffenet", "Caffe's reference network: pooling, then LRN", 1.0, norm_first=False)

# "One weird trick" as torchvision has it [TV]: no LRN, dropout before fc6 and fc7.
ONE_WEIRD_TRICK = Variant(
    "one_weird_trick", "torchvision's alexnet, from \"One weird trick\"", 224, 1000, "torchvision",
    (
        Conv("conv1", 64, 11, stride=4, padding=2), Relu("relu1"), Pool("pool1", "max"),
        Conv("conv2", 192, 5, padding=2), Relu("relu2"), Pool("pool2", "max"),
        Conv("conv3", 384, 3, padding=1), Relu("relu3"),
        Conv("conv4", 256, 3, padding=1), Relu("relu4"),
        Conv("conv5", 256, 3, padding=1), Relu("relu5"), Pool("pool5", "max"), AdaptivePool("avgpool"),
        Dropout("drop6"), Dense("fc6", 4096), Relu("relu6"),
        Dropout("drop7"), Dense("fc7", 4096), Relu("relu7"),
        Dense("fc8", None),
    ),
)  # fmt: skip

# cuda-convnet2's layers-imagenet-1gpu.cfg [C2]. Zeros go to the bottom and right, where torchvision pads all
# sides: the weights of the two are not interchangeable.
ONE_WEIRD_TRICK_LRN = Variant(
    "one_weird_trick_lrn", "cuda-convnet2's one-GPU network", 224, 1000, "paper",
    (
        Conv("conv1", 64, 11, stride=4, ceil=True, std=0.01), LRN("lrn1", **_CODE_LRN),
        Pool("pool1", "max", ceil=True), Relu("relu1"),
        Conv("conv2", 192, 5, padding=2, std=0.01, bias=1.0), Relu("relu2"),
        LRN("lrn2", **_CODE_LRN), Pool("pool2", "max", ceil=True),
        Conv("conv3", 384, 3, padding=1, std=0.03), Relu("relu3"),
        Conv("conv4", 256, 3, padding=1, std=0.03, bias=1.0), Relu("relu4"),
        Conv("conv5", 256, 3, padding=1, std=0.03, bias=1.0), Relu("relu5"),
        Pool("pool5", "max", ceil=True),
        *_classifier(0.01, 0.01, 1.0, fc8_bias=-7.0),
    ),
)  # fmt: skip

# The CIFAR-10 nets. Pools are 3/2 ceil; average pools divide by the clipped area ([C2]'s kernel).
CIFAR_18PCT = Variant(
    "cifar_18pct", "cuda-convnet's 18% error CIFAR-10 network", 32, 10, "cifar",
    (
        Conv("conv1", 32, 5, padding=2, std=1e-4), Pool("pool1", "max", ceil=True), Relu("relu1"),
        SpatialNorm("rnorm1", 3, 5e-5, 0.75),
        Conv("conv2", 32, 5, padding=2, std=0.01), Relu("relu2"), Pool("pool2", "average", ceil=True),
        SpatialNorm("rnorm2", 3, 5e-5, 0.75),
        Conv("conv3", 64, 5, padding=2, std=0.01), Relu("relu3"), Pool("pool3", "average", ceil=True),
        Dense("fc10", None, 0.01),
    ),
    (("conv1", 0.004), ("conv2", 0.004), ("conv3", 0.004), ("fc10", 1.0)),
)  # fmt: skip
CIFAR_13PCT = Variant(
    "cifar_13pct", "cuda-convnet's 13% error CIFAR-10 network with unshared local layers", 24, 10, "cifar",
    (
        Conv("conv1", 64, 5, padding=2, std=1e-4), Relu("relu1"), Pool("pool1", "max", ceil=True),
        Conv("conv2", 64, 5, padding=2, std=0.01), Relu("relu2"), Pool("pool2", "max", ceil=True),
        LocalConv("local3", 32, 3, padding=1, std=0.04), Relu("relu3"),
        LocalConv("local4", 32, 3, padding=1, std=0.04), Relu("relu4"),
        Dense("fc10", None, 0.01),
    ),
    (("conv1", 0.0), ("conv2", 0.0), ("local3", 0.004), ("local4", 0.004), ("fc10", 0.004)),
)  # fmt: skip
_CIFAR_LRN = {"size": 5, "alpha": 1e-3, "beta": 0.75, "k": 1.0, "divide_by_size": True}
CIFAR_11PCT = replace(
    CIFAR_13PCT,
    name="cifar_11pct",
    summary="cuda-convnet's 11% error CIFAR-10 network: the 13% one with LRN before each pool",
    layers=(
        *CIFAR_13PCT.layers[:2], LRN("lrn1", **_CIFAR_LRN), *CIFAR_13PCT.layers[2:5],
        LRN("lrn2", **_CIFAR_LRN), *CIFAR_13PCT.layers[5:],
    ),
)  # fmt: skip
# example-layers/layers-80sec.cfg and layer-params-80sec.cfg [S]: no norms, and a hidden layer of 64 units.
CIFAR_80SEC = Variant(
    "cifar_80sec", "cuda-convnet's CIFAR-10 network of 26% error in 80 seconds", 32, 10, "cifar",
    (
        Conv("conv1", 32, 5, padding=2, std=1e-4), Relu("relu1"), Pool("pool1", "max", ceil=True),
        Conv("conv2", 32, 5, padding=2, std=0.01), Relu("relu2"), Pool("pool2", "average", ceil=True),
        Conv("conv3", 64, 5, padding=2, std=0.01), Relu("relu3"), Pool("pool3", "average", ceil=True),
        Dense("fc64", 64, 0.1), Relu("relu4"),
        Dense("fc10", None, 0.1),
    ),
    (("conv1", 0.004), ("conv2", 0.004), ("conv3", 0.004), ("fc64", 0.03), ("fc10", 0.03)),
)  # fmt: skip

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        SINGLE_COLUMN, TWO_COLUMN, CUDA_CONVNET_2012, CAFFE_ALEXNET, CAFFENET, ONE_WEIRD_TRICK,
        ONE_WEIRD_TRICK_LRN, CIFAR_18PCT, CIFAR_13PCT, CIFAR_11PCT, CIFAR_80SEC,
    )
}  # fmt: skip


def layers_with_weights(variant: Variant) -> tuple[str, ...]:
    """Names of the layers that have a kernel and a bias, in order; the last one makes the logits."""
    return tuple(row.name for row in variant.layers if isinstance(row, Conv | LocalConv | Dense))


def columns_of(variant: Variant) -> int:
    """Into how many columns the network divides what its first convolution makes."""
    convolutions = [row for row in variant.layers if isinstance(row, Conv)]
    return convolutions[1].groups if len(convolutions) > 1 else 1


def spanning_columns(variant: Variant) -> Variant:
    """The same network with LRN windows that cross the columns."""
    return replace(variant, layers=tuple(replace(x, columns=1) if isinstance(x, LRN) else x for x in variant.layers))
