"""`python -m parity gpu`: all that only a GPU can show, in one call that ends in time whatever breaks on the way."""
