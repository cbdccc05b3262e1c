"""A rendered, seeded road in CamVid's classes."""
