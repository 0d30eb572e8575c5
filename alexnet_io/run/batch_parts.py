"""Whether a batch can be divided into the parts that `--accumulate` asks for."""

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.errors import UserError


def refuse_uneven(settings: CompleteSettings, devices: int) -> None:
    """Refuse a batch that can't be shared evenly by the devices, and by its parts on each of them.

    Args:
        settings: of the run.
        devices: how many have different images; they can share the batch.

    Raises:
        UserError: as said.
    """
    size, parts = settings.batch_size, settings.accumulate
    if size % (devices * parts) == 0:
        return
    each = size // devices
    fitting = ", ".join(str(n) for n in range(1, each + 1) if each % n == 0)
    where = f", {each} on each of {devices} devices," if devices > 1 else ""
    raise UserError(
        f"--accumulate {parts}: a batch of {size} images{where} can't be divided into {parts} equal parts. Choose from "
        f"{fitting}, or another --batch-size"
    )
