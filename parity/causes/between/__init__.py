"""The search for a mistake in the code between layers, or in a function: forward, backward, two at once."""
