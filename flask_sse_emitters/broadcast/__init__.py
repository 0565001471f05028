"""One event to many clients: lists of emitters, and the delivery to them."""
