"""Channels: their names, their subscribers in this process, and replay."""
