"""What nodes of a graph of operations may be, by name: beginnings, parts, moves of values."""

from __future__ import annotations

# Where a graph begins: what a layer gave, an input of the model, a parameter, a constant; or what can't be told.
LAYER, GIVEN, PARAMETER, CONSTANT, UNKNOWN = "layer output", "model input", "parameter", "constant", "unknown"
SOURCES = frozenset({LAYER, GIVEN, PARAMETER, CONSTANT, UNKNOWN})
# One of several results; an array of which a part was overwritten.
ITEM, ASSIGN = "item", "assign"
# Operations that give a part of an array, or all of it in another shape, without copying.
VIEWS = frozenset(
    {"slice", "select", "unsqueeze", "squeeze", "transpose", "permute", "t", "alias", "detach", "unflatten"}
)
# That move, select or repeat values, and do nothing else.
MOVES = VIEWS | {
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "expand",
    "clone",
    "contiguous",
    "_to_copy",
    "copy",
    "flip",
    "roll",
    "unbind",
    "split",
    "split_with_sizes",
    "chunk",
    "narrow",
    "movedim",
    "repeat",
    "repeat_interleave",
    ITEM,
    "view_as_complex",
    "view_as_real",
    "lift_fresh",
    "flatten",
    "squeeze_copy",
    "view_copy",
    "index_select",
    "index",
}
