"""The broker that keeps channels in PostgreSQL."""

from .broker import PostgresqlBroker as PostgresqlBroker
