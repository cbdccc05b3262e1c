"""The ROS 2 nodes of percodec: `encode`, `predict`, `decode`, `camera`. Thin: what they do is in `percodec.runtime`."""
