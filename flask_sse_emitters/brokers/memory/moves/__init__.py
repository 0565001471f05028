"""What a process that stops gives to another one, and what that takes over: see :mod:`flask_sse_emitters.moving`."""
