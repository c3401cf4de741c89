"""How do rows land? One record for each row, in files or in a table. Landing twice gives the same as landing once."""
