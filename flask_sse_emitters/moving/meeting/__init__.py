"""How the workers of one gunicorn find each other, and the connection of two."""
