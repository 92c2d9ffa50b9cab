"""Primitives on many files, in two bodies that keep one contract."""
