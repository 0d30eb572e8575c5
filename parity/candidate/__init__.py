"""The candidate's half of a comparison: a JAX model beside what was written down of the reference."""
