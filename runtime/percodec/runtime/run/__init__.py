"""What `percodec run`, `encode`, `decode` and `replay` do: settings, outputs, drawing, reports."""
