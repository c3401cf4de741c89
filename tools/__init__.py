"""Programs for those who work on this project; `make help` lists them."""
