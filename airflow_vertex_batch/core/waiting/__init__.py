"""How is a job waited for? This decides when to ask, what an answer means, and when to give up."""
