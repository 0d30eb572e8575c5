"""How much two right results may differ, and the one judge of a difference."""
