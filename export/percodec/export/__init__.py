"""The workstation: train networks, turn them into ONNX graphs, and pack them into bundles.

Which one should I use? `train.run.train` with a configuration from `train.config.load_config`; `bundle.export_bundle` for what a vehicle
loads; `evaluate.bundle.evaluate_bundle` to measure one. Nothing is imported here: torch is loaded only by what needs it.
"""
