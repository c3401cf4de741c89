"""What are things called? Addresses, errors, jobs, rows, identities, manifests, and the ports to systems outside."""
