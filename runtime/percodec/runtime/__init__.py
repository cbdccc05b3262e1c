"""The vehicle: capture -> latent -> prediction, with coding and logging beside it.

Which one should I use? `live.run_live` for a whole run with all its outputs (it is `percodec run`); `pipeline.Pipeline` with
`capture.open_source` and `engine.open_engine` to build your own; `coding` and `replay` for packets and logs at rest.
Nothing is imported here: a process pays only for the parts it names.
"""
