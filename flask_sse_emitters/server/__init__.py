"""The Flask side: what belongs to one app, responses, endpoints."""
