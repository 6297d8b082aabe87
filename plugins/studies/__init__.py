"""Studies: what of a model is looked at."""
