"""The vehicle: capture -> latent -> prediction, with coding and logging beside it.

Which one should I use? `Session` for a loop of your own; `Session.pipeline` with `open_source` where the stages should run at the same
time; `open_engine` for one network alone. `percodec run` is `run.live.run_live`. Importing this costs nothing: a process pays only for the
names it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from percodec.runtime.capture.open import open_source
    from percodec.runtime.engines.open import open_engine
    from percodec.runtime.pipeline.options import Outputs, PipelineOptions
    from percodec.runtime.pipeline.pipeline import Pipeline
    from percodec.runtime.session import Session, Stream, default_bundle

_HOMES = {
    "Outputs": "pipeline.options",
    "Pipeline": "pipeline.pipeline",
    "PipelineOptions": "pipeline.options",
    "Session": "session",
    "Stream": "session",
    "default_bundle": "session",
    "open_engine": "engines.open",
    "open_source": "capture.open",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["Outputs", "Pipeline", "PipelineOptions", "Session", "Stream", "default_bundle", "open_engine", "open_source"]
