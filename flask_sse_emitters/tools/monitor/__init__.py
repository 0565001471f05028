"""Show what the streams of an app do, on a page for people.

The page reads a stream of this package. In each process one timer feeds the streams of all open monitors; while none is
open, nothing runs.
"""

from .access import MonitorAccess
from .views import make_monitor

__all__ = ["MonitorAccess", "make_monitor"]
