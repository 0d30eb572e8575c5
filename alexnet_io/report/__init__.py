"""The report of a run: what it left, and how well it does, as one HTML page."""
