"""May we pay, and for what? Each job is bought once, even after crashes, retries and clears."""
