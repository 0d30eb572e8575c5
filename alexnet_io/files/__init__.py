"""Files written whole or not at all; tensors in one file."""
