"""Networks, their initialisation, and their parameters as one flat vector."""
