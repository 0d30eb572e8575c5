"""Command lines from dataclasses, what they say, and a run's settings."""
