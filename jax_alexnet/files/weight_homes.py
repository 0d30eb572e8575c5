"""One set of weights in three homes: Flax, `torch_ref`, and torchvision's `alexnet`; as safetensors or a safe .pth.

Values are moved bit for bit (`weight_layouts` has the layouts), and a file that says which network it is for is never
loaded into another. What is written says all that predicting needs, and is read back before it takes its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.weights import shipped
from jax_alexnet.ablation import ablated
from jax_alexnet.files import weight_files
from jax_alexnet.files.weight_layouts import (
    Arrays,
    is_torchvision,
    own_names,
    to_flax,
    to_torch,
    to_torchvision,
    torch_shapes,
)
from jax_alexnet.variants import VARIANTS

__all__ = [
    "HOMES",
    "Loaded",
    "check_home",
    "load",
    "read",
    "save",
    "to_flax",
    "to_torch",
    "to_torchvision",
    "torch_shapes",
]

HOMES = ("flax", "torch_ref", "torchvision")


@dataclass(frozen=True)
class Loaded:
    """Weights read from a file.

    Attributes:
        model: the network that they are for.
        params: {layer: {"kernel", "bias"}}.
        image_size: side in pixels that they were made for, as far as the file or the network says.
        facts: what the file says besides; None where it was not exported from a run.
    """

    model: str
    params: dict[str, Arrays]
    image_size: int
    facts: NetworkFacts | None

    @property
    def classes(self) -> int:
        """Outputs of the last layer."""
        return len(self.params[VARIANTS[self.model].layers[-1].name]["bias"])


def save(
    path: Path,
    params: Mapping[str, Mapping[str, Any]],
    model: str,
    image_size: int,
    home: str,
    facts: NetworkFacts | None = None,
    about: Mapping[str, str] | None = None,
    check: Callable[[Mapping[str, Arrays]], None] | None = None,
) -> None:
    """Write Flax parameters to `path` for one of `HOMES`, as .safetensors, .npz, or .pth for the two PyTorch homes.

    Args:
        path: the file; an old one is replaced once the new one has been read back and found to be the same.
        params: {layer: {"kernel", "bias"}}, in any memory order.
        model: the variant's name.
        image_size: side in pixels that they were made for.
        home: whose names and layouts.
        facts: all else that predicting needs; a file without them needs a run, or a network with usual input.
        about: further texts to keep beside them, by name.
        check: called with the parameters as they were read back, before the file takes its place.

    Raises:
        UserError: parameters, home and ending that don't go together, or a place that can't be written to.
        FailedRun: what was written isn't what was to be written.
    """
    check_home(home, model, facts.ablate if facts else None)
    source = {layer: {kind: np.asarray(x) for kind, x in leaves.items()} for layer, leaves in params.items()}
    arrays = to_torch(source, ablated(VARIANTS[model], facts.ablate if facts else None), image_size)
    if home == "flax":
        arrays = {f"{layer}/{kind}": x for layer, leaves in source.items() for kind, x in leaves.items()}
    elif home == "torchvision":
        arrays = to_torchvision(arrays)
    stated = {**(about or {}), "model": model, "image_size": str(image_size), "home": home}
    content = weight_files.Content(arrays, stated, facts.to_text() if facts else None)

    def check_file(written: Path) -> None:
        back = _read(written, path.name, model, image_size)
        said = back.facts.to_text() if back.facts else None
        if said != content.description or not _same(source, back.params):
            raise FailedRun(
                f"{printable(path)} did not come back as it was written, and was not put in place: try again"
            )
        if check is not None:
            check(back.params)

    weight_files.write(path, content, check_file)


def check_home(home: str, model: str, ablate: str | None = None) -> None:
    """Refuse a home that there isn't, or that has no such network."""
    if home not in HOMES:
        raise UserError(f"home {home!r} is not known: choose from {', '.join(HOMES)}")
    if home == "torchvision" and model != "one_weird_trick":
        raise UserError(f"torchvision's alexnet is one_weird_trick, not {model}: choose flax or torch_ref")
    if home == "torchvision" and ablate:
        raise UserError(f"torchvision's alexnet is whole, and this one has --ablate {ablate}: choose flax or torch_ref")


def load(
    path: Path, model: str, image_size: int | None = None, ablate: str | None = None
) -> tuple[dict[str, Arrays], int]:
    """Flax parameters and the number of classes from a file of any home; see `read`."""
    loaded = read(path, model, image_size, ablate=ablate)
    return loaded.params, loaded.classes


def read(
    path: Path,
    model: str | None = None,
    image_size: int | None = None,
    *,
    usual_size: int | None = None,
    ablate: str | None = None,
    flag: str = "--weights",
) -> Loaded:
    """Weights from a .safetensors, .npz or PyTorch file of any home, and what it says of their network.

    Args:
        path: the file, or the name of weights that come with the project.
        model: the network they must be for; the file's own by default, or the only one that its shapes fit.
        image_size: side in pixels that the network is made for; the file's own by default.
        usual_size: the same where neither `image_size` nor the file says it; the variant's own by default.
        ablate: what the network is without, where the file doesn't say; see `--ablate`.
        flag: the command line's word for the file, which an error names.

    Raises:
        UserError: unreadable, unsafe, for another network, for none or several alike, with wrong keys, shapes, types or
            values, or with an impossible description.
    """
    path = shipped.located(path, flag)
    return _read(path, path.name, model, image_size, usual_size, flag, ablate)


def _read(
    path: Path,
    name: str,
    model: str | None,
    image_size: int | None,
    usual_size: int | None = None,
    flag: str = "--weights",
    ablate: str | None = None,
) -> Loaded:
    shown, content = printable(path.with_name(name)), weight_files.read(path, name, flag)
    facts = NetworkFacts.from_text(content.description, shown) if content.description else None
    stated = facts.model if facts else content.facts.get("model")
    if stated not in VARIANTS:
        stated = None  # a word of another program's
    if model and stated and stated != model:
        raise UserError(f"{shown} holds weights of {stated}, not of {model}: pass --model {stated}")
    home, arrays = content.facts.get("home"), content.arrays
    if home is None and arrays and all("/" in key for key in arrays):
        home = "flax"  # torch_ref's and torchvision's names have dots
    size = image_size or (facts.image_size if facts else _side(content.facts.get("image_size"))) or usual_size
    try:
        if stated is None:
            arrays = arrays if home == "flax" else own_names(arrays)
            stated = "one_weird_trick" if is_torchvision(arrays) else _only_fitting(arrays, model, size, home)
        chosen = VARIANTS.get(model or stated or "")
        if chosen is None:
            raise UserError(
                "it says no network that it is for, and its names and shapes fit none: pass --model NAME to see what "
                f"is missing, of {', '.join(VARIANTS)}"
            )
        chosen, size = ablated(chosen, facts.ablate if facts else ablate), size or chosen.image_size
        if home == "flax":
            arrays = to_torch(_nested(arrays), chosen, size)
        params = to_flax(arrays, chosen, size)
    except UserError as error:
        raise UserError(f"{shown}: {error}") from None
    bad = [f"{layer}/{kind}" for layer, leaves in params.items() for kind, x in leaves.items() if not _finite(x)]
    if bad:
        raise UserError(f"{shown} has values that are not finite in {', '.join(bad)}: use another file")
    loaded = Loaded(chosen.name, params, size, facts)
    if facts and len(facts.class_names) != loaded.classes:
        raise UserError(
            f"{shown} names {len(facts.class_names)} classes and has weights for {loaded.classes}: export it again"
        )
    return loaded


def _only_fitting(arrays: Arrays, model: str | None, size: int | None, home: str | None) -> str | None:
    """The one network that weights without a name on them fit, or None; refused where `model` is one of several."""
    fitting = []
    for variant in VARIANTS.values():
        try:
            to_torch(_nested(arrays), variant, size) if home == "flax" else to_flax(arrays, variant, size)
        except UserError:
            continue
        fitting.append(variant.name)
    if len(fitting) > 1 and model in (None, *fitting):
        raise UserError(
            f"it doesn't say which network it is for, and its shapes fit {', '.join(fitting)}: save it again with the "
            f"entry 'model': '{model or fitting[0]}' beside its 'state_dict', or as safetensors metadata"
        )
    return fitting[0] if fitting and model is None else None


def _side(word: str | None) -> int | None:
    """The image size that a file states; None where it states none that could be."""
    return int(word) if word and word.isdecimal() and 1 <= int(word) <= 4096 else None


def _nested(arrays: Arrays) -> dict[str, Arrays]:
    nested: dict[str, Arrays] = {}
    for name, value in arrays.items():
        layer, _, kind = name.partition("/")
        nested.setdefault(layer, {})[kind] = value
    return nested


def _same(a: Mapping[str, Mapping[str, np.ndarray]], b: Mapping[str, Mapping[str, np.ndarray]]) -> bool:
    """Whether both have the same values bit for bit, in the same types."""

    def flat(tree: Mapping[str, Mapping[str, np.ndarray]]) -> dict[tuple[str, str], tuple[Any, ...]]:
        return {
            (layer, kind): (x.dtype.name, x.shape, np.asarray(x, x.dtype.newbyteorder("<")).tobytes())
            for layer, leaves in tree.items()
            for kind, x in leaves.items()
        }

    return flat(a) == flat(b)


def _finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(x.astype(np.float32) if x.dtype.name == "bfloat16" else x).all())
