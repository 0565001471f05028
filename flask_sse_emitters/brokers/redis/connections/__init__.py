"""The way to Redis: its address, connections that keep to a deadline, and the client that runs scripts on them."""
