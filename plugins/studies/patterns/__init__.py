"""What rows of attention look like, as numbers: one file a pattern, no study in any of them."""
