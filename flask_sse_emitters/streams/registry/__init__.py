"""All open streams of an app: whose they are, how many there may be, what they are given, and how they are drained."""
