"""What brokers have in common that ask a server: it may be slow, refuse, or be away, and has a clock of its own."""
