"""Every fault of the infrastructure at every call of a batch, and the result of each."""
