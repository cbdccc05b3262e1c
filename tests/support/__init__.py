"""What several test folders share, imported as `support.NAME`: tests/ is on the path (see `pythonpath` in pyproject.toml)."""
