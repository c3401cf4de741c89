"""Every fault of the infrastructure at every call of a batch, and what came of it."""
