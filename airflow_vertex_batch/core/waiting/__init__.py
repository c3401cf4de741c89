"""How does a task wait for a job? This package decides when to ask, what an answer means, and when to give up."""
