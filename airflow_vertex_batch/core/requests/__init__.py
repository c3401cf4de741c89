"""How do rows become request files? Sources, the template, the schema, lint, and prepare, which writes them."""
