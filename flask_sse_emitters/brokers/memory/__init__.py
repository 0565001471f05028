"""The broker that keeps channels in this process."""

from .broker import MemoryBroker as MemoryBroker
