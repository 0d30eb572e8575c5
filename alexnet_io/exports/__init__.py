"""What exports of trained networks have in common: their formats, what they carry, and how they are checked."""
