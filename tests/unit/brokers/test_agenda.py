"""The agenda of channels: each comes up when it is due, and costs no timer of its own."""

from __future__ import annotations

import math

from flask_sse_emitters.brokers.memory.agenda import GROUP_SECONDS, NO_GROUP, Agenda


class Item:
    group = NO_GROUP


def test_agenda_brings_items_up_soon_after_they_are_due() -> None:
    agenda: Agenda[Item] = Agenda()
    items = [Item() for _ in range(100)]
    for number, item in enumerate(items):
        agenda.add(item, 100.0 + number / 10)
    assert agenda.due == 100.0
    came: list[Item] = []
    for tenth in range(1000, 1130):
        now = tenth / 10
        for item in agenda.take_due(now):
            assert 0 <= now - (100.0 + items.index(item) / 10) <= GROUP_SECONDS
            assert item.group == NO_GROUP
            came.append(item)
    assert came == items
    assert agenda.due == math.inf


def test_agenda_keeps_the_earliest_time_of_an_item() -> None:
    agenda: Agenda[Item] = Agenda()
    item = Item()
    agenda.add(item, math.inf)
    assert agenda.due == math.inf
    for when in (50.0, 70.0, 30.0, 40.0):
        agenda.add(item, when)
    assert agenda.due == 30.0
    assert agenda.take_due(29.9) == []
    assert agenda.take_due(30.0) == [item]
    agenda.add(item, 90.0)
    assert agenda.take_due(50.0) == [item], "too early, where it was put off: its owner looks"
