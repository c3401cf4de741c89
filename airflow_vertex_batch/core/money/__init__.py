"""What does a batch cost? Prices, and what is expected before anything is paid."""
