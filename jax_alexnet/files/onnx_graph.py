"""A network's table as an ONNX graph: standard operators under the layers' own names, images of any number.

The graph is written from the table that `model.py` walks, not from a trace of it: a trace has what XLA computes,
channels last and pooling as the maximum of shifted maps, where ONNX has operators that every runtime knows (`MaxPool`,
`LRN`, `Conv` with groups). Images are (batch, 3, height, width), as these want them, so weights lie as PyTorch's.

Operators are used so that runtimes can't read them in two ways: windows that overhang have their padding spelt out,
since versions of ONNX round `ceil_mode` differently. ONNX Runtime refuses `LRN` of an even number of channels, and ONNX
has no windows over positions nor kernels of their own for each: these are composed.

onnx is imported where a graph is made: the other formats do without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_alexnet import layer_specs as specs
from jax_alexnet.files.weight_layouts import to_torch
from jax_alexnet.shapes import layer_shape

OPSET, IR_VERSION = 18, 9  # of 2022 and 2023: what every runtime in use reads
IMAGES, LOGITS = "images", "logits"
Map = tuple[int, ...]  # height, width and channels, or features


class Graph:
    """Nodes and constants as plain data, and the names of what they make.

    Attributes:
        nodes: (operator, inputs, output, attributes), in running order.
        constants: arrays by name.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One node; returns the name of what it makes."""
        self.nodes.append((operator, list(inputs), output, attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """An array under a name, once."""
        self.constants.setdefault(name, np.asarray(values))
        return name

    def indices(self, *values: int) -> str:
        """An array of whole numbers, such as axes; equal ones are one constant."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A float32 number; equal ones are one constant."""
        return self.constant(f"number_{value!r}", np.float32(value))

    def slice(self, x: str, output: str, axis: int, start: int, stop: int) -> str:
        """Part of an array along one axis."""
        return self.add("Slice", [x, self.indices(start), self.indices(stop), self.indices(axis)], output)


def graph_of(variant: specs.Variant, params: Mapping[str, Mapping[str, Any]], side: int, classes: int) -> Graph:
    """The network on images (batch, 3, side, side), as it is in evaluation; from `IMAGES` to `LOGITS`.

    Args:
        variant: the table.
        params: {layer: {"kernel", "bias"}}, as Flax has them.
        side: of the images, in pixels.
        classes: features of the last layer.
    """
    graph, weights = Graph(), to_torch(params, variant, side)
    rows = [row for row in variant.layers if not isinstance(row, specs.Dropout)]
    x, shape = IMAGES, (side, side, 3)
    for row in rows:
        output = LOGITS if row is rows[-1] else row.name
        x = _layer(graph, row, x, output, shape, weights)
        shape = layer_shape(row, shape, classes).output_shape
    return graph


def to_bytes(graph: Graph, side: int, classes: int, texts: Mapping[str, str], version: str) -> bytes:
    """The graph as a file's content, held to ONNX's own rules.

    Args:
        graph: from `graph_of`.
        side: see `graph_of`.
        classes: see `graph_of`.
        texts: the file's metadata.
        version: of this package.
    """
    import onnx
    from onnx import helper, numpy_helper

    number = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        [helper.make_node(op, inputs, [output], output, **how) for op, inputs, output, how in graph.nodes],
        texts["model"],
        [helper.make_tensor_value_info(IMAGES, number, ["batch", 3, side, side])],
        [helper.make_tensor_value_info(LOGITS, number, ["batch", classes])],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    model = helper.make_model(
        made,
        producer_name="jax-alexnet",
        producer_version=version,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(texts))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _layer(graph: Graph, row: specs.Layer, x: str, output: str, shape: Map, weights: Mapping[str, np.ndarray]) -> str:
    """One row of the table on a map (batch, channels, height, width)."""
    match row:
        case specs.Conv():
            return _conv(graph, row, x, output, shape, weights)
        case specs.LocalConv():
            return _local_conv(graph, row, x, output, shape, weights)
        case specs.Dense():
            flat = graph.add("Flatten", [x], f"{row.name}_flat", axis=1) if len(shape) == 3 else x
            return graph.add("Gemm", [flat, *_weights(graph, row, weights)], output, transB=1)
        case specs.Relu():
            return graph.add("Relu", [x], output)
        case specs.Tanh():
            return graph.add("Tanh", [x], output)
        case specs.LRN():
            return _lrn(graph, row, x, output, shape)
        case specs.SpatialNorm():
            # Padding counts, so that a mean times the window's area is the sum over what lies inside the map.
            before, after = row.size // 2, (row.size - 1) // 2
            window = {"kernel_shape": [row.size] * 2, "pads": [before, before, after, after], "count_include_pad": 1}
            squares = graph.add("Mul", [x, x], f"{row.name}_squares")
            means = graph.add("AveragePool", [squares], f"{row.name}_means", **window)
            return _divided(graph, row, x, means, row.alpha, output)
        case specs.Pool():
            edges = [_overhang(side, row.window, row.stride) if row.ceil else 0 for side in shape[:2]]
            how = {"kernel_shape": [row.window] * 2, "strides": [row.stride] * 2, "pads": [0, 0, *edges]}
            if row.kind == "max":
                return graph.add("MaxPool", [x], output, **how)
            return graph.add("AveragePool", [x], output, **how, count_include_pad=0)
        case specs.AdaptivePool():
            rows = _window_means(graph, f"{row.name}_rows", x, 2, shape[0], row.size, f"{row.name}_rows")
            return _window_means(graph, f"{row.name}_columns", rows, 3, shape[1], row.size, output)
    raise TypeError(f"no operators for {row!r}")


def _weights(graph: Graph, row: specs.Layer, weights: Mapping[str, np.ndarray]) -> list[str]:
    names = [f"{row.name}.weight", f"{row.name}.bias"]
    return [graph.constant(name, weights[name].astype(np.float32)) for name in names]


def _overhang(side: int, window: int, stride: int, padding: int = 0) -> int:
    """Pixels that the last window has beyond the edge where their number is rounded up; as `shapes.window_count`."""
    windows = layer_shape(specs.Pool("", "max", window, stride, ceil=True), (side + padding,) * 2 + (1,), 1)
    return max(0, (windows.output_shape[0] - 1) * stride + window - side - padding)


def _conv(graph: Graph, row: specs.Conv, x: str, output: str, shape: Map, weights: Mapping[str, np.ndarray]) -> str:
    after = layer_shape(row, shape, 1).output_shape
    ends = [
        max(row.padding, (count - 1) * row.stride + row.window - side - row.padding) if row.ceil else row.padding
        for side, count in zip(shape[:2], after[:2], strict=True)
    ]
    return graph.add(
        "Conv",
        [x, *_weights(graph, row, weights)],
        output,
        kernel_shape=[row.window] * 2,
        strides=[row.stride] * 2,
        pads=[row.padding, row.padding, *ends],
        group=row.groups,
    )


def _local_conv(
    graph: Graph, row: specs.LocalConv, x: str, output: str, shape: Map, weights: Mapping[str, np.ndarray]
) -> str:
    """Each position's patch times its own kernel: one product of matrices a position, for all images at once."""
    height, width, features = layer_shape(row, shape, 1).output_shape
    name, window, p = row.name, row.window, row.padding
    padded = graph.add("Pad", [x, graph.indices(0, 0, p, p, 0, 0, p, p)], f"{name}_padded")
    pixels = []
    for i in range(window):
        rows = graph.slice(padded, f"{name}_rows_{i}", 2, i, i + height)
        pixels += [graph.slice(rows, f"{name}_pixel_{i}_{j}", 3, j, j + width) for j in range(window)]
    patches = graph.add("Concat", pixels, f"{name}_patches", axis=1)
    by_place = graph.add("Transpose", [patches], f"{name}_by_place", perm=[2, 3, 0, 1])
    kernels = weights[f"{name}.weight"].transpose(0, 1, 4, 5, 3, 2).reshape(height, width, -1, features)
    bias = weights[f"{name}.bias"].reshape(height, width, 1, features)
    names = (
        graph.constant(f"{name}.weight", kernels.astype(np.float32)),
        graph.constant(f"{name}.bias", bias.astype(np.float32)),
    )
    products = graph.add("MatMul", [by_place, names[0]], f"{name}_products")
    summed = graph.add("Add", [products, names[1]], f"{name}_summed")
    return graph.add("Transpose", [summed], output, perm=[2, 3, 0, 1])


def _lrn(graph: Graph, row: specs.LRN, x: str, output: str, shape: Map) -> str:
    """Across channels; of several columns each is a picture of its own, so that windows don't meet."""
    height, width, channels = shape
    if row.columns > 1:
        x = graph.add("Reshape", [x, graph.indices(-1, channels // row.columns, height, width)], f"{row.name}_columns")
    alpha = row.alpha if row.divide_by_size else row.alpha * row.size  # ONNX divides by the size
    apart = output if row.columns == 1 else f"{row.name}_apart"
    if row.size % 2:
        how = {"size": row.size, "alpha": alpha, "beta": row.beta, "bias": row.k}
        normed = graph.add("LRN", [x], apart, **how)
    else:
        normed = _even_lrn(graph, row, x, alpha / row.size, apart, channels // row.columns)
    if row.columns == 1:
        return normed
    return graph.add("Reshape", [normed, graph.indices(-1, channels, height, width)], output)


def _even_lrn(graph: Graph, row: specs.LRN, x: str, scale: float, output: str, channels: int) -> str:
    """Of an even number of channels, one more before than after: shifted squares, added."""
    before, after = row.size // 2, (row.size - 1) // 2
    squares = graph.add("Mul", [x, x], f"{row.name}_squares")
    padded = graph.add("Pad", [squares, graph.indices(0, before, 0, 0, 0, after, 0, 0)], f"{row.name}_padded")
    parts = [graph.slice(padded, f"{row.name}_part_{i}", 1, i, i + channels) for i in range(row.size)]
    return _divided(graph, row, x, graph.add("Sum", parts, f"{row.name}_sums"), scale, output)


def _divided(graph: Graph, row: specs.LRN | specs.SpatialNorm, x: str, sums: str, scale: float, output: str) -> str:
    """The values over (k + scale * sums) ** beta."""
    scaled = graph.add("Mul", [sums, graph.number(scale)], f"{row.name}_scaled")
    base = graph.add("Add", [scaled, graph.number(row.k)], f"{row.name}_base")
    power = graph.add("Pow", [base, graph.number(row.beta)], f"{row.name}_power")
    return graph.add("Div", [x, power], output)


def _window_means(graph: Graph, name: str, x: str, axis: int, length: int, count: int, output: str) -> str:
    """Means along one axis over its adaptive windows; see `pooling.adaptive_average_pool`."""
    means = []
    for i in range(count):
        window = graph.slice(x, f"{name}_{i}", axis, i * length // count, -(-(i + 1) * length // count))
        means.append(graph.add("ReduceMean", [window, graph.indices(axis)], f"{name}_mean_{i}", keepdims=1))
    return graph.add("Concat", means, output, axis=axis)
