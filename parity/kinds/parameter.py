"""Single parameters that a module owns beside its children's: a class token, a table of positions.

No layer uses them, the code between the layers does: so they are paired like layers, but never called. Each is a leaf
of its own, whose path ends in the parameter's name, and whose one value is called `value` on both sides.
"""

from __future__ import annotations

from parity.kinds.kind import Kind, Weight

VALUE = "value"

KIND = Kind(name="parameter", weights=(Weight(VALUE, VALUE),))
