"""The machine: one thing a file, no sync logic."""
