"""What batch, layer and group normalisation share: a scale and an offset for what was standardised."""

from parity.kinds.kind import BIAS, Weight

AFFINE = (Weight("weight", "scale"), BIAS)
STATISTICS = (
    Weight("running_mean", "mean", collection="batch_stats"),
    Weight("running_var", "var", collection="batch_stats"),
)
