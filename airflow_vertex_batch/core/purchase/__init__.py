"""May we pay, and for what? Each job is bought once, whatever crashes, is retried or is cleared."""
