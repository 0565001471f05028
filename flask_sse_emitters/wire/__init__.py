"""Events and their form on the wire, both ways. Pure: no I/O, no clock, no state."""
