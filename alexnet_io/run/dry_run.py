"""`train --dry-run`: one step of the run that would be, through the engine that would take it."""

import time

from alexnet_io.run.engine import Engine


def dry_run(engine: Engine) -> int:
    """Begin, take a step and say what came of it; nothing is written. Returns the exit code."""
    started = time.perf_counter()
    engine.start()
    batch = next(iter(engine.batches(0)))
    sums = engine.fetch(engine.train(batch, 0, engine.learning_rate(0)))
    engine.say(
        f"dry run: one step built and run in {time.perf_counter() - started:.1f} s, loss "
        f"{sums.loss / sums.examples:.4f}; nothing written"
    )
    return 0
