"""What a network can be trained without, or with in another's place: the words of `--ablate`.

Each framework changes its own networks; here is only what the words are and which of them exclude each other.
"""

from alexnet_io.command_line.flags import one_of
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

ABLATIONS = {
    "tanh": "tanh in place of every ReLU; layers keep their names",
    "no-lrn": "no response normalisation, across channels or positions",
    "no-overlap": "pools as wide as their stride, with maps of the same size",
    "one-column": "one column, with half the kernels in every convolution but the last",
    "two-columns": "two columns, which meet in the third convolution and behind the last",
}
_COLUMNS = ("one-column", "two-columns")


def ablations(words: str | None) -> tuple[str, ...]:
    """The words of `--ablate`, each once, in the order of `ABLATIONS`.

    Raises:
        UserError: an unknown word, or two that exclude each other.
    """
    given = [word.strip() for word in words.split(",")] if words is not None else []
    for word in given:
        one_of("--ablate", word, tuple(ABLATIONS))
    if set(_COLUMNS) <= set(given):
        raise UserError(f"--ablate {words}: a network has {' or '.join(_COLUMNS)}, not both: leave one out")
    return tuple(word for word in ABLATIONS if word in given)


def refuse_nothing_to_change(word: str, model: str, changed: bool, lacking: str) -> None:
    """Refuse an ablation of what a network hasn't got.

    Args:
        word: of `ABLATIONS`.
        model: the network.
        changed: whether there was something to change.
        lacking: what there wasn't, in words.

    Raises:
        UserError: nothing was changed.
    """
    if not changed:
        raise UserError(f"--ablate {word}: {model} has {lacking}: leave {word} out, or choose another --model")


def refuse_other_ablation(words: str | None, shown: str, wanted: str | None) -> None:
    """Refuse weights that were learnt in a network changed otherwise than the one that is to begin with them.

    Args:
        words: their network's `--ablate`.
        shown: where they are from.
        wanted: the run's `--ablate`.

    Raises:
        UserError: the two differ.
    """
    if ablations(words) != ablations(wanted):
        remedy = f"pass --ablate {printable(words)}" if words else "leave --ablate out"
        raise UserError(f"--init-from {shown}: its network was trained with --ablate {words or 'nothing'}: {remedy}")
