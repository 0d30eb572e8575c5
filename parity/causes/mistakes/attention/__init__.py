"""Mistakes in attention: scale, heads, masks, rotary and sinusoidal positions, caps."""
