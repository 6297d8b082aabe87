"""Methods that change what a model remembers of its prompt: one family a file."""
