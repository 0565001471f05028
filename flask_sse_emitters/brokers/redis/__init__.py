"""The broker that keeps channels in Redis."""

from .broker import RedisBroker as RedisBroker
