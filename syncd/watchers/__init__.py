"""Who tells us that something changed."""
