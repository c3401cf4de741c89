"""What becomes of a batch when processes die? A proxy that kills after chosen effects, and a night of such runs."""
