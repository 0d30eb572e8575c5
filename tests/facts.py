"""Figures transcribed from the papers, the released code and published logs: the third witness.

This module imports nothing of ours, so that no constant can be wrong in both implementations and here alike.
Both `jax_alexnet` and `torch_ref` are held to it separately.

Source keys:
    [S]   the original 2012 source released by the Computer History Museum
          (computerhistory/AlexNet-Source-Code, commit 2f8b81f)
    [P]   Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, 2012
    [C1]  cuda-convnet at 3878e8f
    [C2]  cuda-convnet2 at 3238bf0
    [K]   BVLC/caffe at 9b89154
    [TV]  torchvision's documentation and `models/alexnet.py`
    [SD]  the notebook this project began from: Devlee247/PyTorch-Implementations at dd33994, `CNN/AlexNet.ipynb`
    [calc] computed with integers or 40-digit decimals, by hand from the sources above

Output shapes are (channels, height, width), of a fully connected layer (features,); MACs are weight
multiplications for one image, biases not counted.
"""

from typing import NamedTuple

Shape = tuple[int, ...]


class LayerFacts(NamedTuple):
    """One layer of a network at its default input size and classes."""

    output: Shape
    parameters: int = 0
    macs: int = 0


class NetworkFacts(NamedTuple):
    """A network at its default input size and classes; layers in the order they run."""

    image_size: int
    classes: int
    parameters: int
    macs: int
    layers: dict[str, LayerFacts]
    units: int | None = None  # activations of all layers with weights, where the sources give the figure


_Rows = dict[str, LayerFacts]


def _layers(order: str, rows: _Rows) -> _Rows:
    """The named rows in running order; layers without a row keep the shape of the one before them."""
    layers: _Rows = {}
    previous = LayerFacts((3,))
    for name in order.split():
        keeps_shape = name.startswith(("relu", "lrn", "rnorm", "drop"))
        previous = LayerFacts(previous.output) if keeps_shape else rows[name]
        layers[name] = previous
    return layers


# --- The two-column net: the paper, the released net 145, bvlc_alexnet and CaffeNet share these [S][K][calc].
_TWO_COLUMN = {
    "conv1": LayerFacts((96, 55, 55), 34_944, 105_415_200),
    "pool1": LayerFacts((96, 27, 27)),
    "conv2": LayerFacts((256, 27, 27), 307_456, 223_948_800),
    "pool2": LayerFacts((256, 13, 13)),
    "conv3": LayerFacts((384, 13, 13), 885_120, 149_520_384),
    "conv4": LayerFacts((384, 13, 13), 663_936, 112_140_288),
    "conv5": LayerFacts((256, 13, 13), 442_624, 74_760_192),
    "pool5": LayerFacts((256, 6, 6)),
    "fc6": LayerFacts((4096,), 37_752_832, 37_748_736),
    "fc7": LayerFacts((4096,), 16_781_312, 16_777_216),
    "fc8": LayerFacts((1000,), 4_097_000, 4_096_000),
}
_MIDDLE = "conv3 relu3 conv4 relu4 conv5 relu5 pool5"
_HEAD = "fc6 relu6 drop6 fc7 relu7 drop7 fc8"

# --- cuda-convnet2's one-GPU net and torchvision's: "one weird trick", one column [C2][TV].
_ONE_WEIRD_TRICK = {
    "conv1": LayerFacts((64, 55, 55), 23_296, 70_276_800),
    "pool1": LayerFacts((64, 27, 27)),
    "conv2": LayerFacts((192, 27, 27), 307_392, 223_948_800),
    "pool2": LayerFacts((192, 13, 13)),
    "conv3": LayerFacts((384, 13, 13), 663_936, 112_140_288),
    "conv4": LayerFacts((256, 13, 13), 884_992, 149_520_384),
    "conv5": LayerFacts((256, 13, 13), 590_080, 99_680_256),
    "pool5": LayerFacts((256, 6, 6)),
    "avgpool": LayerFacts((256, 6, 6)),
    "fc6": LayerFacts((4096,), 37_752_832, 37_748_736),
    "fc7": LayerFacts((4096,), 16_781_312, 16_777_216),
    "fc8": LayerFacts((1000,), 4_097_000, 4_096_000),
}

# --- The notebook's net: the paper's widths in one column, ten classes [SD][calc].
_SINGLE_COLUMN = {
    "conv1": LayerFacts((96, 55, 55), 34_944, 105_415_200),
    "pool1": LayerFacts((96, 27, 27)),
    "conv2": LayerFacts((256, 27, 27), 614_656, 447_897_600),
    "pool2": LayerFacts((256, 13, 13)),
    "conv3": LayerFacts((384, 13, 13), 885_120, 149_520_384),
    "conv4": LayerFacts((384, 13, 13), 1_327_488, 224_280_576),
    "conv5": LayerFacts((256, 13, 13), 884_992, 149_520_384),
    "pool5": LayerFacts((256, 6, 6)),
    "avgpool": LayerFacts((256, 6, 6)),
    "fc6": LayerFacts((4096,), 37_752_832, 37_748_736),
    "fc7": LayerFacts((4096,), 16_781_312, 16_777_216),
    "fc8": LayerFacts((10,), 40_970, 40_960),
}

# --- CIFAR-10: `layers-cifar/` and `example-layers/` of [S], `example-layers/` of [C1].
_CIFAR_18PCT = {
    "conv1": LayerFacts((32, 32, 32), 2_432, 2_457_600),
    "pool1": LayerFacts((32, 16, 16)),
    "conv2": LayerFacts((32, 16, 16), 25_632, 6_553_600),
    "pool2": LayerFacts((32, 8, 8)),
    "conv3": LayerFacts((64, 8, 8), 51_264, 3_276_800),
    "pool3": LayerFacts((64, 4, 4)),
    "fc10": LayerFacts((10,), 10_250, 10_240),
}
_CIFAR_80SEC = _CIFAR_18PCT | {
    "fc64": LayerFacts((64,), 65_600, 65_536),
    "fc10": LayerFacts((10,), 650, 640),
}
_CIFAR_LOCAL = {
    "conv1": LayerFacts((64, 24, 24), 4_864, 2_764_800),
    "pool1": LayerFacts((64, 12, 12)),
    "conv2": LayerFacts((64, 12, 12), 102_464, 14_745_600),
    "pool2": LayerFacts((64, 6, 6)),
    "local3": LayerFacts((32, 6, 6), 664_704, 663_552),
    "local4": LayerFacts((32, 6, 6), 332_928, 331_776),
    "fc10": LayerFacts((10,), 11_530, 11_520),
}

_ORDERS = {
    "seed": f"conv1 relu1 lrn1 pool1 conv2 relu2 lrn2 pool2 {_MIDDLE} avgpool {_HEAD}",
    "paper": f"conv1 relu1 lrn1 pool1 conv2 relu2 lrn2 pool2 {_MIDDLE} {_HEAD}",
    "released": f"conv1 lrn1 pool1 relu1 conv2 relu2 lrn2 rnorm2 pool2 {_MIDDLE} {_HEAD}",
    "caffenet": f"conv1 relu1 pool1 lrn1 conv2 relu2 pool2 lrn2 {_MIDDLE} {_HEAD}",
    "torchvision": f"conv1 relu1 pool1 conv2 relu2 pool2 {_MIDDLE} avgpool drop6 fc6 relu6 drop7 fc7 relu7 fc8",
    "one_gpu": f"conv1 lrn1 pool1 relu1 conv2 relu2 lrn2 pool2 {_MIDDLE} {_HEAD}",
    "18pct": "conv1 pool1 relu1 rnorm1 conv2 relu2 pool2 rnorm2 conv3 relu3 pool3 fc10",
    "80sec": "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 pool3 fc64 relu4 fc10",
    "13pct": "conv1 relu1 pool1 conv2 relu2 pool2 local3 relu3 local4 relu4 fc10",
    "11pct": "conv1 relu1 lrn1 pool1 conv2 relu2 lrn2 pool2 local3 relu3 local4 relu4 fc10",
}


def _network(size: int, classes: int, parameters: int, macs: int, units: int | None, order: str, rows: _Rows):
    return NetworkFacts(size, classes, parameters, macs, _layers(_ORDERS[order], rows), units)


NETWORKS: dict[str, NetworkFacts] = {
    # [SD]; the total is the one the notebook prints
    "single_column": _network(227, 10, 58_322_314, 1_131_201_056, None, "seed", _SINGLE_COLUMN),
    # [P] section 3; the paper rounds to "60 million parameters and 650,000 neurons"
    "two_column": _network(224, 1000, 60_965_224, 724_406_816, 659_272, "paper", _TWO_COLUMN),
    # [S] layers/layers-145.cfg
    "cuda_convnet_2012": _network(224, 1000, 60_965_224, 724_406_816, 659_272, "released", _TWO_COLUMN),
    # [K] models/bvlc_alexnet and models/bvlc_reference_caffenet
    "caffe_alexnet": _network(227, 1000, 60_965_224, 724_406_816, 659_272, "paper", _TWO_COLUMN),
    "caffenet": _network(227, 1000, 60_965_224, 724_406_816, 659_272, "caffenet", _TWO_COLUMN),
    # [TV]; both totals are in its documentation (0.714 G)
    "one_weird_trick": _network(224, 1000, 61_100_840, 714_188_480, 494_184, "torchvision", _ONE_WEIRD_TRICK),
    # [C2] layers-imagenet-1gpu.cfg
    "one_weird_trick_lrn": _network(224, 1000, 61_100_840, 714_188_480, 494_184, "one_gpu", _ONE_WEIRD_TRICK),
    "cifar_18pct": _network(32, 10, 89_578, 12_298_240, None, "18pct", _CIFAR_18PCT),  # [S]
    "cifar_13pct": _network(24, 10, 1_116_490, 18_517_248, None, "13pct", _CIFAR_LOCAL),  # [S]
    "cifar_11pct": _network(24, 10, 1_116_490, 18_517_248, None, "11pct", _CIFAR_LOCAL),  # [C1]
    "cifar_80sec": _network(32, 10, 145_578, 12_354_176, None, "80sec", _CIFAR_80SEC),  # [S]
}

# [S] layers-145-half.cfg: one column, with half of all kernels but conv5's.
HALF_NETWORK_PARAMETERS = 59_798_312
# [S] example-layers/layers-19pct.cfg is layers-18pct.cfg without its norms.
WITHOUT_NORMS = {"cifar_18pct": ("rnorm1", "rnorm2"), "cifar_11pct": ("lrn1", "lrn2")}


class OtherSize(NamedTuple):
    """Totals or maps of a network away from its defaults."""

    model: str
    image_size: int
    classes: int
    parameters: int | None = None
    macs: int | None = None
    outputs: dict[str, Shape] | None = None


OTHER_SIZES = (
    OtherSize("single_column", 227, 10, 58_322_314, 1_131_201_056),  # printed by the notebook [SD]
    OtherSize("single_column", 227, 1000, 62_378_344, 1_135_256_096),  # [calc]
    OtherSize(  # floor arithmetic gives 54/26/12/5; the adaptive pool then upsamples 5 to 6 [calc]
        "single_column",
        224,
        10,
        58_322_314,
        outputs={
            "conv1": (96, 54, 54),
            "pool1": (96, 26, 26),
            "conv2": (256, 26, 26),
            "pool2": (256, 12, 12),
            "conv5": (256, 12, 12),
            "pool5": (256, 5, 5),
            "avgpool": (256, 6, 6),
        },
    ),
    # https://github.com/tflearn/tflearn/pull/193 and the counts stated for torchvision with ten classes
    OtherSize("one_weird_trick", 224, 10, 57_044_810),
    OtherSize("cifar_13pct", 32, 10, 1_901_386, 32_919_552),  # [calc] from [S]
    OtherSize("cifar_11pct", 32, 10, 1_901_386, 32_919_552),
)

# Width after conv1 (11x11, stride 4) and the three 3x3/2 pools, by (image size, padding of conv1, ceil pools).
# https://stats.stackexchange.com/questions/132897 and https://github.com/torch/nn/issues/116
MAP_TRACES: dict[tuple[int, int, bool], tuple[int, int, int, int]] = {
    (224, 2, False): (55, 27, 13, 6),
    (227, 0, False): (55, 27, 13, 6),
    (224, 0, False): (54, 26, 12, 5),
    (227, 2, False): (56, 27, 13, 6),
    (227, 2, True): (56, 28, 14, 7),
    (224, 0, True): (54, 27, 13, 6),
    (224, 2, True): (55, 27, 13, 6),
    (227, 0, True): (55, 27, 13, 6),
}
CIFAR_POOL_TRACES = {32: (16, 8, 4), 24: (12, 6, 3)}  # 3x3/2 ceil pools [S][C1]
TORCHVISION_MIN_SIZE = 63  # [TV]
COLUMN_CHANNELS = {"lrn1": 48, "lrn2": 128}  # each column's share; LRN windows stay inside it in [S]


class LrnSettings(NamedTuple):
    """y_i = x_i / (k + a * sum of x_j^2 over the window)^beta, with a = alpha / size when `divide_by_size`.

    `even` names the side on which an even window holds one channel more; `columns` are equal blocks of
    channels that windows don't cross.
    """

    size: int
    alpha: float
    beta: float
    k: float
    divide_by_size: bool = True
    even: str = "left"
    columns: int = 1


class LrnCase(NamedTuple):
    """Channels of one pixel before and after; by default given to ten significant digits."""

    name: str
    x: tuple[float, ...]
    settings: LrnSettings
    y: tuple[float, ...]
    rtol: float = 1e-9
    atol: float = 0.0


def _rounded(
    name: str, x: tuple[float, ...], settings: LrnSettings, y: tuple[float, ...], atol: float = 6e-8
) -> LrnCase:
    """A case from a report, whose values are rounded to a number of decimals."""
    return LrnCase(name, x, settings, y, 0.0, atol)


_X5 = (1.0, 2.0, 3.0, 4.0, 5.0)
_X4 = (1.0, 2.0, 3.0, 4.0)
_X100 = (100.0,) * 5
_ONES = (1.0,) * 4
_MEAN = LrnSettings(5, 1.0, 0.75, 2.0)
_SUM = LrnSettings(5, 1.0, 0.75, 2.0, False)
_SUM_VALUES = (0.1250000, 0.1486509, 0.2229763, 0.3044659)

LRN_CASES = (
    # [calc], 40-digit decimals; the names say whose settings they are.
    LrnCase(
        "paper, also TensorFlow with depth_radius 2, bias 2, alpha 1e-4, beta 0.75",
        _X5,
        LrnSettings(5, 1e-4, 0.75, 2.0, False),
        (0.5942915817, 1.187871011, 1.780140394, 2.373609292, 2.967455545),
    ),
    LrnCase(
        "released code, also MXNet's default",
        _X5,
        LrnSettings(5, 1e-4, 0.75, 2.0),
        (0.5945411318, 1.188939614, 1.783075205, 2.377451427, 2.971903393),
    ),
    LrnCase(
        "PyTorch's and ONNX's default, Caffe's AlexNet",
        _X5,
        LrnSettings(5, 1e-4, 0.75, 1.0),
        (0.9997900514, 1.999100472, 2.997527380, 3.996763059, 4.996253278),
    ),
    LrnCase(
        "Caffe's default",
        _X5,
        LrnSettings(5, 1.0, 0.75, 1.0),
        (0.3674195852, 0.4647361605, 0.4653024296, 0.6282731295, 0.8278001304),
    ),
    LrnCase(
        "TensorFlow's default, depth_radius 5: eleven channels wide",
        _X5,
        LrnSettings(11, 1.0, 0.5, 1.0, False),
        (0.1336306210, 0.2672612419, 0.4008918629, 0.5345224838, 0.6681531048),
    ),
    LrnCase(
        "size 2 in PyTorch and cuda-convnet: the notebook's",
        _X5,
        LrnSettings(2, 1e-4, 0.75, 1.0),
        (0.9999625016, 1.999625082, 2.998538331, 3.996254097, 4.992326264),
    ),
    LrnCase(
        "size 2 in ONNX",
        _X5,
        LrnSettings(2, 1e-4, 0.75, 1.0, even="right"),
        (0.9998125410, 1.999025554, 2.997190573, 3.993861011, 4.995317621),
    ),
    LrnCase(
        "size 2 in PyTorch, alpha 1",
        _X5,
        LrnSettings(2, 1.0, 0.75, 1.0),
        (0.7377879465, 0.7815899428, 0.6619501839, 0.5679494260, 0.5007732932),
    ),
    LrnCase(
        "size 2 in ONNX, alpha 1",
        _X5,
        LrnSettings(2, 1.0, 0.75, 1.0, even="right"),
        (0.3907949714, 0.4413001226, 0.4259620695, 0.4006186346, 0.7099367825),
    ),
    LrnCase(
        "cifar_11pct",
        _X5,
        LrnSettings(5, 1e-3, 0.75, 1.0),
        (0.9979051318, 1.991046992, 2.975485841, 3.967903179, 4.962825145),
    ),
    # https://github.com/BVLC/caffe/issues/1453 , https://github.com/pytorch/pytorch/pull/4667
    _rounded("mean", _X4, _MEAN, (0.3083678, 0.4204482, 0.6306723, 0.8570162)),
    _rounded("sum", _X4, _SUM, _SUM_VALUES),
    _rounded("mean with five times alpha", _X4, _MEAN._replace(alpha=5.0), _SUM_VALUES),
    _rounded(
        "mean of hundreds",
        _X100,
        _MEAN._replace(alpha=1e-4),
        (48.83936, 46.19888, 43.86913, 46.19888, 48.83936),
        6e-6,
    ),
    _rounded(
        "sum of hundreds",
        _X100,
        _SUM._replace(alpha=1e-4),
        (29.90698, 26.08474, 23.23681, 26.08474, 29.90698),
        6e-6,
    ),
    # https://github.com/alibaba/MNN/pull/192: what depth_radius 5 gives where size 5 was meant
    _rounded("radius 5", _X4, _SUM._replace(size=11), (0.0743254, 0.1486509, 0.2229763, 0.2973018)),
    # https://github.com/apache/mxnet/issues/11281 , https://github.com/tracel-ai/burn/pull/4765
    _rounded("size 4, left", _X4, LrnSettings(4, 1.0, 0.75, 1.0), (0.5443311, 0.6473224, 0.6026388, 0.8217118)),
    _rounded("size 2, left", _X4, LrnSettings(2, 1.0, 0.75, 1.0), (0.7377879, 0.7815899, 0.6619502, 0.5679494)),
    _rounded(
        "size 4, right",
        _X4,
        LrnSettings(4, 1.0, 0.75, 1.0, even="right"),
        (0.3236612, 0.4017592, 0.6162839, 0.9053291),
    ),
    _rounded(
        "size 2, right",
        _X4,
        LrnSettings(2, 1.0, 0.75, 1.0, even="right"),
        (0.3907950, 0.4413001, 0.4259621, 0.7698004),
    ),
    # https://github.com/FluxML/Flux.jl/pull/720: channels beyond the edge are zeros, not repeats
    _rounded("ones, 3", _ONES, LrnSettings(3, 1.0, 1.0, 0.0, False), (1 / 2, 1 / 3, 1 / 3, 1 / 2), 1e-15),
    _rounded("ones, 5", _ONES, LrnSettings(5, 1.0, 1.0, 0.0, False), (1 / 3, 1 / 4, 1 / 4, 1 / 3), 1e-15),
    _rounded("ones, 7", _ONES, LrnSettings(7, 1.0, 1.0, 0.0, False), (1 / 4, 1 / 4, 1 / 4, 1 / 4), 1e-15),
    # https://github.com/NVIDIA/caffe/issues/135: what half precision must come near to
    _rounded("one channel of 300", (300.0,), _MEAN._replace(alpha=1e-4), (110.2259,), 6e-5),
    # https://github.com/BVLC/caffe/issues/4202 , https://github.com/chainer/chainer/pull/1650
    _rounded("pool before LRN", (4.0, 9.0), _MEAN, (0.4020219, 0.9045492)),
    _rounded("ReLU before LRN", (0.0, 1.0), _MEAN, (0.0, 0.5535833)),
)

# The networks' own: [SD], [P] section 3.3, [S] layers-145.cfg, [K], [C2], [C1].
LRN_SETTINGS: dict[str, LrnSettings] = {
    "single_column": LrnSettings(2, 1e-4, 0.75, 1.0),
    "two_column": LrnSettings(5, 1e-4, 0.75, 2.0, False, columns=2),
    "cuda_convnet_2012": LrnSettings(5, 1e-4, 0.75, 2.0, columns=2),
    "caffe_alexnet": LrnSettings(5, 1e-4, 0.75, 1.0),
    "caffenet": LrnSettings(5, 1e-4, 0.75, 1.0),
    "one_weird_trick_lrn": LrnSettings(5, 1e-4, 0.75, 2.0),
    "cifar_11pct": LrnSettings(5, 1e-3, 0.75, 1.0),
}


class SpatialNormSettings(NamedTuple):
    """Same-map response norm over size x size pixels: x / (k + alpha / size^2 * sum x^2)^beta."""

    size: int
    alpha: float
    beta: float
    k: float


# [S]; the base constant k of net 145's extra norm was not released and is taken as 1 (unverified).
SPATIAL_NORM_SETTINGS: dict[str, SpatialNormSettings] = {
    "cuda_convnet_2012": SpatialNormSettings(5, 1e-3, 0.75, 1.0),
    "cifar_18pct": SpatialNormSettings(3, 5e-5, 0.75, 1.0),
}


class Initialisation(NamedTuple):
    """Standard deviation of a layer's normal weights and its constant bias."""

    std: float
    bias: float


def _initialisation(std: str, bias: str, names: str) -> dict[str, Initialisation]:
    rows = zip(names.split(), std.split(), bias.split(), strict=True)
    return {name: Initialisation(float(s), float(b)) for name, s, b in rows}


_EIGHT = "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8"
# Networks that are missing here (single_column [SD], one_weird_trick [TV]) use PyTorch's default: weights and
# biases uniform in +-1/sqrt(fan_in), so that the standard deviation is 1/sqrt(3 fan_in).
INITIALISATION: dict[str, dict[str, Initialisation]] = {
    # [P] section 5: 0.01 throughout; biases 1 in conv2, conv4, conv5 and the hidden fully connected layers
    "two_column": _initialisation(".01 .01 .01 .01 .01 .01 .01 .01", "0 1 0 1 1 1 1 0", _EIGHT),
    # [S] layers-145.cfg: 0.03 in conv3, conv4, conv5
    "cuda_convnet_2012": _initialisation(".01 .01 .03 .03 .03 .01 .01 .01", "0 1 0 1 1 1 1 0", _EIGHT),
    # [K]: 0.1 where the paper has 1, which gave a flat loss
    "caffe_alexnet": _initialisation(".01 .01 .01 .01 .01 .005 .005 .01", "0 .1 0 .1 .1 .1 .1 0", _EIGHT),
    # [K] bvlc_reference_caffenet
    "caffenet": _initialisation(".01 .01 .01 .01 .01 .005 .005 .01", "0 1 0 1 1 1 1 0", _EIGHT),
    # [C2]: the last bias suits logistic outputs
    "one_weird_trick_lrn": _initialisation(".01 .01 .03 .03 .03 .01 .01 .01", "0 1 0 1 1 1 1 -7", _EIGHT),
    "cifar_18pct": _initialisation("1e-4 .01 .01 .01", "0 0 0 0", "conv1 conv2 conv3 fc10"),  # [S]
    "cifar_13pct": _initialisation(  # [S]
        "1e-4 .01 .04 .04 .01", "0 0 0 0 0", "conv1 conv2 local3 local4 fc10"
    ),
    "cifar_11pct": _initialisation(  # [C1]
        "1e-4 .01 .04 .04 .01", "0 0 0 0 0", "conv1 conv2 local3 local4 fc10"
    ),
    "cifar_80sec": _initialisation("1e-4 .01 .01 .1 .1", "0 0 0 0 0", "conv1 conv2 conv3 fc64 fc10"),  # [S]
}
# PyTorch's default against Flax's, https://github.com/n2cholas/jax-resnet/issues/3: (std, bound) by fan-in
DEFAULT_STD = {363: (0.0303030, 0.0524864), 9216: (0.0060141, 1 / 96)}


class Recipe(NamedTuple):
    """How a network was trained; `schedule` in the source's own words."""

    batch: int
    learning_rate: float
    momentum: float | None
    weight_decay: float
    schedule: str
    epochs: int | None
    bias_rate: float = 1.0  # learning rate of the biases, in units of the weights'
    biases_decay: bool = True


RECIPES: dict[str, Recipe] = {
    "blog": Recipe(4, 1e-4, None, 0.0, "constant, Adam", 50),  # [SD]
    "paper": Recipe(128, 0.01, 0.9, 5e-4, "divided by 10 on a validation plateau, three times", 90),  # [P]
    # [K] both: 450,000 iterations of 256 are 90 epochs of 1.28 million images
    "caffe": Recipe(256, 0.01, 0.9, 5e-4, "x 0.1 every 100,000 iterations", None, 2.0, False),
    "torchvision": Recipe(256, 0.01, 0.9, 1e-4, "x 0.1 every 30 epochs", 90),  # [TV], 8 x 32
}
CAFFE_STEP_ITERATIONS = 100_000
CAFFE_MAX_ITERATIONS = 450_000
TORCHVISION_STEP_EPOCHS = 30
PLATEAU_DROPS = 3  # [P] section 5


class CifarRecipe(NamedTuple):
    """A CIFAR-10 net's training: weights' rate (biases twice that), weight decay per layer."""

    learning_rate: float
    bias_rate: float
    momentum: float
    weight_decay: dict[str, float]


CIFAR_RECIPES: dict[str, CifarRecipe] = {
    # [S] layer-params-18pct.cfg: all rates divided by 10 after 120 epochs, and again 10 later
    "cifar_18pct": CifarRecipe(1e-3, 2.0, 0.9, {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1.0}),
    "cifar_13pct": CifarRecipe(
        1e-3, 2.0, 0.9, {"conv1": 0.0, "conv2": 0.0, "local3": 0.004, "local4": 0.004, "fc10": 0.004}
    ),
    "cifar_11pct": CifarRecipe(
        1e-3, 2.0, 0.9, {"conv1": 0.0, "conv2": 0.0, "local3": 0.004, "local4": 0.004, "fc10": 0.004}
    ),
    # [S] layer-params-80sec.cfg
    "cifar_80sec": CifarRecipe(
        1e-3, 2.0, 0.9, {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc64": 0.03, "fc10": 0.03}
    ),
}
CIFAR_18PCT_MILESTONES = (120, 130)
CIFAR_CROP = {"cifar_13pct": 24, "cifar_11pct": 24}  # random 24x24 (border 4) and flips; nine test views

# torchvision's normalisation in RGB, images in [0, 1] [TV]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALISED_BLACK = (-2.1179, -2.0357, -1.8044)
NORMALISED_WHITE = (2.2489, 2.4286, 2.6400)

# Loss of guessing evenly, ln(classes): what a fresh network should start from.
CHANCE_LOSS = {10: 2.302585, 100: 4.605170, 1000: 6.907755}


class Published(NamedTuple):
    """A published result: error in per cent, top-1 and top-5."""

    what: str
    top1: float
    top5: float


PUBLISHED = (
    Published("ILSVRC-2010 test, ten views [P]", 37.5, 17.0),
    Published("ILSVRC-2010 test, ten views, log of net 145 [S]", 37.4727, 16.9987),
    Published("ILSVRC-2010 test, centre, log of net 145 [S]", 39.0247, 18.2953),
    Published("ILSVRC-2012 validation, one net [P]", 40.7, 18.2),
    Published("ILSVRC-2012 validation, log of net 145 [S]", 40.664, 18.210),
    Published("bvlc_alexnet, centre [K]", 100 - 57.1, 100 - 80.2),
    Published("CaffeNet, centre [K]", 100 - 57.4, 100 - 80.4),
    Published("torchvision, centre [TV]", 100 - 56.522, 100 - 79.066),
    Published("cuda-convnet2, one view [C2]", 42.55, 19.81),
)
CIFAR_ERROR = {"cifar_80sec": 26.0, "cifar_18pct": 18.0, "cifar_13pct": 13.0, "cifar_11pct": 11.0}  # per cent [C1]
NOTEBOOK_VALIDATION_LOSS = {1: 0.972, 6: 0.700}  # by epoch, printed by [SD]


# --- Published scaling of AlexNet's training.

# Images/s on 1, 2, 4, 8 P100s in a DGX-1, 512 images each, float32, synthetic data: tensorflow/docs_src/performance/
# benchmarks.md of tensorflow/tensorflow at 5984ffe.
P100_SPEEDS: dict[int, float] = {1: 2987, 2: 5658, 4: 10509, 8: 17822}

# One weird trick on K20s: hours on one GPU, and speed over that of one, the whole batch at once through the fully
# connected layers. Recalled, unverified but for the hours and the last.
WEIRD_TRICK_HOURS = 98.05
WEIRD_TRICK_SPEEDUPS: dict[int, float] = {1: 1.0, 2: 1.95, 4: 3.74, 8: 6.25}
# What is being timed: 90 epochs [C2] of ILSVRC 2012's 1,281,167 training images.
WEIRD_TRICK_IMAGES = 90 * 1_281_167
