"""Events and their bytes, both ways. Pure."""
