"""What is done before and after batches? The preflight before, and the sweep of jobs that were left behind."""
