"""What a stream does because of the time: its end, its heartbeats, and finding clients that take nothing."""
