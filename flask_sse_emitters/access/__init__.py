"""Who may read a channel, and who may publish to one: what an app imports to write its rules."""

from .grants import Grant
from .jwt import jwt_authorizer
from .rules import Rule

__all__ = ["Grant", "Rule", "jwt_authorizer"]
