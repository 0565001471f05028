"""The broker that keeps channels in PostgreSQL."""
