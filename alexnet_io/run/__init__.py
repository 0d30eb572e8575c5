"""A training run: its loop, what it leaves and shows."""
