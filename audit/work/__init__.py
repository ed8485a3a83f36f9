"""What to compute, where it is kept, who computes it."""
