"""What keeps pairs alive: opening one, running its cycles, answering questions about it."""
