"""Who may read a channel, and who may publish to one. Apps import from here to write their rules."""

from .grants import Grant
from .jwt import jwt_authorizer
from .rules import Rule

__all__ = ["Grant", "Rule", "jwt_authorizer"]
