"""Giving the open streams of a worker that stops to one that stays."""
