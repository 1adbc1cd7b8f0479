"""Loops that numba compiles: how they are compiled, cached and run on several threads, and vectors for them."""
