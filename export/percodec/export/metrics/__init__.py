"""What is measured: `scores` of predictions, `similarity` of pictures."""
