"""How do rows land? As one record a row, in files or in a table; landing twice is landing once."""
