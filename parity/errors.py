"""What stops a comparison: the one exception of the harness that stands alone."""


class CannotCompare(ValueError):
    """Two models can't be compared as given: the message names what is in the way, and the next step."""


class LayersUnseen(CannotCompare):
    """Layers that run where they can't be cut out, or can't be paired; the models can still be compared as wholes."""


class CannotConvert(CannotCompare):
    """Weights can't be converted by a mapping, or there is none: the message names what doesn't fit."""
