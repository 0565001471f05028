"""How much of everything a run measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    clients: tuple[int, ...] = (100, 1_000, 10_000, 19_000)
    #: What a measurement should cost the server, in seconds of CPU.
    cpu: float = 1.25
    burst_clients: tuple[int, ...] = (1_000, 10_000)
    burst_deliveries: int = 1_280_000
    memory_clients: int = 10_000
    connects: int = 1_000
    connect_rounds: int = 6
    idle_clients: int = 10_000
    idle_seconds: float = 46.0
    heartbeat: float = 15.0
    stuck_clients: int = 1_000
    stuck_rounds: int = 4
    ordinary_clients: int = 10_000
    convoy_clients: int = 10_000
    convoy_events: int = 20
    convoy_seconds: float = 20.0
    shared_clients: int = 1_000
    foreign_clients: int = 1_000
    foreign_events: int = 20_000
    reload_clients: int = 10_000
    reload_channels: int = 100
    reload_rate: float = 200.0
    reload_steady_seconds: float = 20.0
    reload_seconds: float = 120.0
    reload_every: float = 5.0
    reload_moves: int = 3
    #: ``SSE_HISTORY``: so few that each channel has as many before memory is measured, and keeps no more from then on.
    reload_history: int = 30
    users_clients: int = 15_000
    users_rate: float = 2_000.0
    users_windows: int = 3
    users_window_seconds: float = 60.0
    users_idle_seconds: float = 15.0
    single_clients: int = 5_000
    single_calls: int = 2_000
    single_events: int = 5_000
    single_rate: float = 500.0
    storm_clients: int = 10_000


QUICK = Plan(
    clients=(1_000,),
    cpu=0.15,
    burst_clients=(1_000,),
    burst_deliveries=96_000,
    memory_clients=1_000,
    connects=200,
    connect_rounds=1,
    idle_clients=1_000,
    idle_seconds=3.0,
    heartbeat=1.0,
    stuck_rounds=1,
    ordinary_clients=1_000,
    convoy_clients=200,
    convoy_events=3,
    shared_clients=200,
    reload_clients=500,
    reload_channels=10,
    reload_steady_seconds=1.0,
    reload_seconds=4.0,
    reload_every=2.0,
    reload_moves=1,
    reload_history=200,
    foreign_clients=200,
    foreign_events=1_000,
    users_clients=1_000,
    users_rate=500.0,
    users_windows=1,
    users_window_seconds=3.0,
    users_idle_seconds=3.0,
    single_clients=200,
    single_calls=200,
    single_events=200,
    storm_clients=400,
)
