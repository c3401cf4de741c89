"""What is done before and after the batches? The preflight, and the sweep of what was left behind."""
