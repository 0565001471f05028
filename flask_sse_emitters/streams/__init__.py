"""One client's stream: its state machine, its parts, and the registry of all open streams."""
