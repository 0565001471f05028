"""Settings and their checks, and the current app and request."""
