"""From the vehicle's log to the archive: the agent on the vehicle, and ingest beside the archive."""
