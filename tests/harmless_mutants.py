"""Bugs of `mutate_programs.py` that change nothing that a user could see: declared one by one, or told by their kind.

Each has its reason. Only what no test noticed is asked about.
"""

import ast
import fcntl
from pathlib import Path
from typing import Any

# By file: part of "function: the line as it was  ->  the line in its place", and why nothing changes.
_NO_STEP = "any number below 0 stands for no step: they are compared with steps, or asked for their sign"
_ONE_BY_ONE = "steps are counted one by one, up to the last, and this is asked after each"
_KINDS = "parameters are kernels (weights) and biases"
_NOBODY_ASSIGNS = "nothing assigns to its fields"
_AT_LEAST_ONE = "there is never less than one"
_BY_NAME = "callers name what comes after the star, and nothing before it"
DECLARED: dict[str, dict[str, str]] = {
    "alexnet_io/run/saving.py": {
        "self.step, self.is_due = - 2": _NO_STEP,
        "self.step, self.is_due = ~1": _NO_STEP,
        "self.step = - 2": _NO_STEP,
        "self.step = ~1": _NO_STEP,
        "->  if self.step < state.step": "no checkpoint is of a later step than the run's",
    },
    "alexnet_io/run/directory_lock.py": {
        "LOCK_EX - fcntl.LOCK_NB": "lockf asks for single bits, and -2 has those of 6",
        "LOCK_SH - fcntl.LOCK_NB": "lockf asks for single bits, and -3 has those of 5",
        "read( 999)": "the line that a process leaves there is far shorter",
        "read( 1001)": "the line that a process leaves there is far shorter",
    },
    "alexnet_io/run/data_identity.py": {"frozen=False": _NOBODY_ASSIGNS},
    "alexnet_io/run/loop.py": {
        "evaluated_step: int = - 0": "no run ends at step 0",
        "evaluated_step: int = not 1": "no run ends at step 0",
        "evaluated_step: int = - 2": _NO_STEP,
        "evaluated_step: int = ~1": _NO_STEP,
        "_evaluation_is_due(state.step / per_epoch)": "it is asked at the end of an epoch, so the quotient is whole",
        "return 128 | self.stopped": "signals are numbered below 128, so that no bits overlap",
        "return 128 ^ self.stopped": "signals are numbered below 128, so that no bits overlap",
        "== self.last_step:  ->  if self.state.step <= self.last_step": "asked where it is the last or more",
        "_epoch: if self.state.step >= self.last_step:  ->  if self.state.step == self.last_step": _ONE_BY_ONE,
        "0 or self.state.step == self.last_step": _ONE_BY_ONE,
        "batch.weights != 0": "weights are 0 or 1",
        'schedule >= "plateau"': "the last of the schedules by name",
        "if self.evaluated_step < self.state.step": "no evaluation is of a later step than the run's",
        "if self.state.best_step > best_step": "a new best is of a later step than the one before",
    },
    "jax_alexnet/augment.py": {"keys[ 4], (3,)": "JAX takes the last of four keys for it"},
    "jax_alexnet/engine.py": {
        "(- 2, np.empty(0))": _NO_STEP,
        "(~1, np.empty(0))": _NO_STEP,
        "(-1, np.empty( 1))": "what belongs to no epoch is never read",
        "from_first(- 2 if": _NO_STEP,
        "from_first(~1 if": _NO_STEP,
        "->  def _all_finite(": "compiled or not, it answers the same",
    },
    "jax_alexnet/evaluation.py": {
        "image_size: int = ": "read only where views are given, and this with them",
        "rows[ -1] if len(rows) == 1": "the last of one is the first",
        "if len(rows) <= 1": _AT_LEAST_ONE,
        "start or -1": "what begins at the start comes first with -1, too",
        "if processes.count <= 1": _AT_LEAST_ONE,
    },
    "jax_alexnet/optim.py": {
        "where(norm <= limit, g,": "a gradient at the limit is kept, or multiplied by 1, rounded",
        'kind <= "bias"': _KINDS,
        "path[- 3:]": "paths have two parts: layer and kind",
        "path[~2:]": "paths have two parts: layer and kind",
        "path[not 2:]": "paths have two parts: layer and kind",
    },
    "jax_alexnet/steps.py": {
        "if mesh.size > 0 else": "a sum over one device is what it is of",
        "if mesh.size >= 1 else": "a sum over one device is what it is of",
        "if mesh.size != 1 else": _AT_LEAST_ONE,
        "devices.flat[ -1].platform": "all devices of a mesh are of one platform",
        "zeros(( 0, image_size": "the shapes of weights are those for any number of images",
        "zeros(( 2, image_size": "the shapes of weights are those for any number of images",
        "key( -1), image": "shapes are the same from any key",
        "key( 1), image": "shapes are the same from any key",
        'default_backend() > "cpu"': "of cpu, gpu and tpu the first by name",
        "jnp.asarray(batch.weights) != 0": "weights are 0 or 1",
        "_wide(logits), 1)": "of rows that don't count any equal logits do",
        "_wide(logits), -1)": "of rows that don't count any equal logits do",
        "batch.labels, 1)": "of rows that don't count any class does",
    },
    "jax_alexnet/files/checkpoint_files.py": {
        "frozen=False": _NOBODY_ASSIGNS,
        "found.manifest.metric, not found.step)": "they come by ascending step, and the first of equals is taken",
        "found.manifest.metric, ~found.step)": "~n falls where n rises, as -n does",
        "in range( 19)": "how often it is tried in all is no promise",
        "in range( 21)": "how often it is tried in all is no promise",
    },
    "torch_ref/checkpoint.py": {
        "network: nn.Module, /, model": _BY_NAME,
        "flush=False": "what the resumed run says next is flushed, and this with it",
    },
    "torch_ref/engine.py": {
        "self._agreed.save != 0": "it counts processes",
        "and step <= 0": "steps are counted from 0",
        "group.count <= 1": _AT_LEAST_ONE,
        "epoch = step / setup": "schedules ask how many whole periods, or which milestones, are past",
        'device.type >= "cuda"': "it runs on CPUs and CUDA alone",
    },
    "torch_ref/optim.py": {
        "where(norm <= limit, 1.0,": "at the limit the factor is 1",
        'kind <= "bias"': _KINDS,
        "kept, strict=False": "both are of the same groups",
    },
    "torch_ref/steps.py": {"after = (logits < own) + (": "of booleans that exclude each other the sum is `or`"},
}


def reason(root: Path, file: str, line: int, before: str, after: str) -> str | None:
    """Why a bug changes nothing; None where it may.

    Args:
        root: of the project as it is without it.
        file: where, below that.
        line: number of the first line that it changes.
        before: that line.
        after: the line in its place.
    """
    around = _around(ast.parse((root / file).read_text(encoding="utf-8")), line)
    for part, why in DECLARED.get(file, {}).items():
        if part in f"{around[-1].name if around else ''}: {before}  ->  {after}":
            return why
    if any(_is_protocol(node) for node in around):
        return "what stands in a protocol is never run"
    try:
        pair = _apart(*(ast.parse(_whole(text)) for text in (before, after)))
    except SyntaxError:  # a line that is part of a statement
        return None
    return _of_expressions(*pair) if pair else None


def _around(tree: ast.Module, line: int) -> list[ast.ClassDef | ast.FunctionDef]:
    """The classes and functions in which a line stands, the innermost last."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return sorted(
        (node for node in found if node.lineno < line <= (node.end_lineno or 0)), key=lambda node: node.lineno
    )


def _is_protocol(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] == "Protocol" for base in node.bases)


def _whole(line: str) -> str:
    """A statement by itself, if the line opens one."""
    opened = line.partition("  #")[0].rstrip()
    opened = f"if {opened[len('elif ') :]}" if opened.startswith("elif ") else opened
    return f"{opened} pass" if opened.endswith(":") else opened


def _apart(one: Any, other: Any) -> tuple[ast.AST, ast.AST] | None:
    """The smallest expressions or statements that hold all that differs between two trees."""
    if type(one) is not type(other) or not isinstance(one, ast.AST):
        return None
    pairs = []
    for name in one._fields:
        ours, theirs = (
            [value] if not isinstance(value := getattr(side, name, None), list) else value for side in (one, other)
        )
        if len(ours) != len(theirs):
            return one, other
        pairs += [(a, b) for a, b in zip(ours, theirs, strict=True) if _dumped(a) != _dumped(b)]
    deeper = _apart(*pairs[0]) if len(pairs) == 1 else None
    return deeper or (one, other)


def _dumped(value: Any) -> str:
    return ast.dump(value) if isinstance(value, ast.AST) else repr(value)


def _of_expressions(before: ast.AST, after: ast.AST) -> str | None:
    if isinstance(before, ast.BinOp) and isinstance(after, ast.BinOp):
        sides = (before.left, before.right)
        if all(isinstance(side, ast.Attribute) and ast.unparse(side.value) == "fcntl" for side in sides):
            values = [eval(ast.unparse(node), {"fcntl": fcntl}) for node in (before, after)]  # two constants
            return "of flags whose bits don't overlap it is the same number" if values[0] == values[1] else None
    if isinstance(before, ast.Compare) and isinstance(after, ast.Compare):
        remainder = isinstance(before.left, ast.BinOp) and isinstance(before.left.op, ast.Mod)
        with_zero = ast.unparse(before.comparators[0]) == ast.unparse(after.comparators[0]) == "0"
        kinds = (type(before.ops[0]), type(after.ops[0]))
        if remainder and with_zero and kinds in ((ast.Eq, ast.LtE), (ast.NotEq, ast.Gt)):
            return "a remainder is never below 0"
    return None
