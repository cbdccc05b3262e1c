"""What is done to a run's best checkpoint when the run has ended, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from percodec.export.train.checkpoint import load_checkpoint, save_checkpoint
from percodec.export.train.tasks import Joint


def finish(
    folder: Path, model: Joint, changes: dict[str, Callable[[Joint], Any]], check: Callable[[Joint], dict[str, Any]]
) -> dict[str, Any]:
    """Make `changes` to the model in `folder`'s best.pt, in their order, those that its record does not name yet. Gives the record.

    A change says what goes into the record under its name. `check` judges the model after them.
    """
    best = folder / "best.pt"
    state = load_checkpoint(best)
    record: dict[str, Any] = state["val"]
    due = {name: change for name, change in changes.items() if name not in record}
    if due:
        model.load_state_dict(state["model"])
        model.eval()
        said = {name: change(model) for name, change in due.items()}
        record = {**record, **check(model), **said}
        save_checkpoint(best, {**state, "model": model.state_dict(), "val": record})
    return record


__all__ = ["finish"]
