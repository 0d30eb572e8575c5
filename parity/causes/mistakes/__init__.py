"""The mistakes that are tried in the code between layers: a family of them in each file."""
