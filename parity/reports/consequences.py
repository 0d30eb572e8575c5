"""Which divergences merely follow from an earlier one, so that one bug is told once.

Every layer gets the reference's input and cotangent, so most bugs show in one layer alone. What still follows: the
other rows of that layer, what the code between layers hands back where it handed on something else, and whatever both
models do as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from parity.reports.rows import Row

END_TO_END = "end to end"
_TIES, _EXPORTED = " at ties", " exported"


def consequences(rows: list[Row]) -> dict[int, int]:
    """Indices of the rows that follow from an earlier divergence, each with the index of the bug's first row.

    Args:
        rows: of a report, in order of execution; of each model all together.
    """
    models: dict[str, _Model] = {}
    for row in rows:
        models.setdefault(row.model, _Model()).see(row)
    found: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row.diverges:
            root = models[row.model].add(index, row)
            if root is not None:
                found[index] = root
    return found


class _Model:
    """One model's divergences so far, and the order in which its layers run."""

    def __init__(self) -> None:
        self.running, self.runs = "input", 1
        self.first, self.last = {"input": 0}, {"input": 0}  # places in the forward pass
        self.after: dict[str, set[str]] = {}  # the layers that run right after each
        self.before: list[tuple[Row, int]] = []  # each with the index of the row that it follows from, or its own

    def see(self, row: Row) -> None:
        """Note the layers in the order of the natural forward pass."""
        if row.stage in ("input", "forward") and row.name != self.running:
            self.after.setdefault(self.running, set()).add(row.name)
            self.running = row.name
            self.first.setdefault(row.name, self.runs)
            self.last[row.name] = self.runs
            self.runs += 1

    def add(self, index: int, row: Row) -> int | None:
        """Add a divergence; returns the index of the one that it follows from, or None."""
        root = next((root for test in _tests(self, row) for known, root in self.before if test(known)), None)
        self.before.append((row, index if root is None else root))
        return root

    def follow(self, later: str, earlier: str) -> bool:
        """Whether a layer runs, ever, after another one has."""
        return later in self.last and self.last[later] >= self.first[earlier]


_Test = Callable[[Row], bool]


def _tests(model: _Model, row: Row) -> Iterator[_Test]:
    """What an earlier divergence must be for this one to follow from it, the likeliest first."""
    part = _part(row)
    if row.name == END_TO_END:
        yield lambda known: _natural(known) and (row.stage == "gradients" or _forward(known))
    elif row.kind in ("optimizer", "training"):
        yield lambda known: _of_one_recipe(row, known)
        return  # memories of one name belong to as many optimizers as there are recipes
    elif row.stage in ("outputs", "gradient"):  # of a function, which has no layers
        yield lambda known: known.stage == "weights" or (row.stage == "gradient" and known.stage == "outputs")
        yield lambda known: bool(row.echo) and known.name == row.echo and known.stage == row.stage
    if row.echo:  # residual connections hand on what an earlier layer got
        yield lambda known: known.name == row.echo and _part(known) == "input"
    yield lambda known: known.name == row.name and _part(known) == part
    if part == "exported":
        yield lambda known: known.name == row.name and known.stage.startswith("weights")
    if part == "input":
        yield (
            lambda known: _part(known) == "input" and _exchanged(row) and _exchanged(known) and _next(model, known, row)
        )
        yield lambda known: known.verdict == "missing" and _next(model, known, row)
        yield lambda known: known.stage == "weights:value" and _inside(row, known)
    if part == "cotangent" and row.name in model.first:
        # Backward, the code after a layer undoes what it does forward, before the next layer.
        yield lambda known: (_part(known) == "input" or known.verdict == "missing") and _next(model, row, known)
        # Residual connections lead through that code from far back. A cause that was named here is a bug of its own.
        yield lambda known: not row.cause_keys and _between(known, row) and model.follow(known.name, row.name)
    if row.stage == "backward:value":  # of a parameter that the code between layers uses
        yield lambda known: _part(known) == "input" and _inside(known, row)


def _part(row: Row) -> str:
    """What a row judges: the code before its layer, or after it, or the layer; or an export of its weights."""
    if row.stage.endswith(_EXPORTED):
        return "exported"
    stage = row.stage.removesuffix(_TIES)
    return stage if stage in ("input", "cotangent") else "layer"


def _between(known: Row, row: Row) -> bool:
    """Whether another row judges code between layers too, both at ties or neither."""
    return _part(known) in ("input", "cotangent") and _natural(known) == _natural(row)


def _natural(row: Row) -> bool:
    return not row.stage.endswith((_TIES, _EXPORTED))


def _forward(row: Row) -> bool:
    """Whether a row is of the forward pass: only those tell on the outputs."""
    return not row.stage.startswith(("backward", "cotangent", "gradient"))


def _of_one_recipe(row: Row, known: Row) -> bool:
    """Losses and gradients belong together, as do an optimizer's memories and parameters; runs follow from either."""
    (recipe, _, rest), (other, _, _) = row.stage.partition(" "), known.stage.partition(" ")
    whole = row.kind == "training" or rest.startswith("free")
    passes = ("loss", "gradients")
    return recipe == other and (whole or (row.name in passes) == (known.name in passes))


def _exchanged(row: Row) -> bool:
    return "order" in row.cause_keys


def _next(model: _Model, one: Row, other: Row) -> bool:
    return other.name in model.after.get(one.name, ())


def _inside(row: Row, parameter: Row) -> bool:
    """Whether a layer is part of the module that owns a parameter; the output is part of the model alone."""
    owner = parameter.name.rpartition("/")[0]
    return not owner or row.name.startswith(f"{owner}/")
