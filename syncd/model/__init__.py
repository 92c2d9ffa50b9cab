"""Values that pass along the line: frozen, without I/O and without a clock."""
