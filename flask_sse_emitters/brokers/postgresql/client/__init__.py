"""The way to the database: its address, connections that keep to a deadline, a few of them, and what errors mean."""
