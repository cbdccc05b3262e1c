"""What writes bundles. Which one should I use? `from_checkpoint` for what was trained, `extend` to add heads and tables to a bundle."""
