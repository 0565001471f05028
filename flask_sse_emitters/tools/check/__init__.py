"""Check a deployed stream from where its clients are: ``flask sse check``."""

from .findings import Finding
from .run import Plan, check
from .target import Target

__all__ = ["Finding", "Plan", "Target", "check"]
