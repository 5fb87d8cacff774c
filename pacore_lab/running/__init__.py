"""A run, from its problems to its folder."""
