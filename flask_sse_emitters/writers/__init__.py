"""How the bytes of a stream reach its client."""
