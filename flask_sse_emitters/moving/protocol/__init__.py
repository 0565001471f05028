"""What workers say to each other: the messages, and what is in them."""
