"""Giving the channels of ``memory://`` to another worker."""

from .giver import MemoryGiver as MemoryGiver
from .taker import MemoryTaker as MemoryTaker
