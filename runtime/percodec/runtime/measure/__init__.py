"""What `percodec profile` does: load, statistics, comparison, sensors, budgets, pages."""
