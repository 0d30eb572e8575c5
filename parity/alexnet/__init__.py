"""This repository's own networks, trainers and data under comparison."""
