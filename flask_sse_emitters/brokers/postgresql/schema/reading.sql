-- The functions that read channels, and lock none.

-- Returns the offset at which an epoch before the present one ended; null where it is not known.
CREATE OR REPLACE FUNCTION sse.end_of(epoch text, former text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(' ' || former FROM ' ' || epoch || ':([0-9]+)')::bigint
$$;

-- Returns the state of some channels, and the events that come after a position in each, as many as fit: a row for each
-- event, or one where there are none. Where that position is not of the channel, all that are kept. after_ms is when the
-- event at that position was published.
CREATE OR REPLACE FUNCTION sse.look_up(names text[], epochs text[], offsets bigint[], most int) RETURNS TABLE (
    place bigint, epoch text, newest bigint, newest_ms bigint, now_ms bigint, max_events bigint, kept_ms bigint,
    former text, first bigint, is_complete boolean, run_until_ms bigint, touched_ms bigint,
    after_ms bigint, number bigint, label text, body bytea, at_ms bigint
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT w.place, c.epoch, c.newest, c.newest_ms, sse.now_ms(), coalesce(c.max_events, @history@),
        coalesce(c.kept_ms, @history_ms@), c.former, c.first, c.is_complete, c.run_until_ms, c.touched_ms,
        (SELECT at_ms FROM sse.events WHERE channel_id = c.id AND number = w.number),
        e.number, e.label, e.body, e.at_ms
    FROM unnest(names, epochs, offsets) WITH ORDINALITY w (name, epoch, number, place)
    LEFT JOIN sse.channels c ON c.name = w.name
    LEFT JOIN LATERAL (
        SELECT s.* FROM (
            SELECT k.*, sum(octet_length(k.body)) OVER (ORDER BY k.number) - octet_length(k.body) AS bytes_before
            FROM (
                SELECT * FROM sse.events x
                WHERE x.channel_id = c.id AND x.number > CASE
                    WHEN w.epoch = c.epoch OR w.number <= sse.end_of(w.epoch, c.former) THEN w.number
                    ELSE c.newest - coalesce(c.max_events, @history@) - c.is_complete::int END
                ORDER BY x.number LIMIT most) k
        ) s WHERE s.bytes_before < @page_bytes@
    ) e ON true
    ORDER BY w.place, e.number;
END
$$;

-- Returns which of these channels are not as their readers have them, or are to be noted as used.
CREATE OR REPLACE FUNCTION sse.changed(
    names text[], epochs text[], offsets bigint[], completes boolean[], have_runs boolean[]
) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT w.name FROM unnest(names, epochs, offsets, completes, have_runs) w (name, epoch, number, complete, has_run)
    LEFT JOIN sse.channels c ON c.name = w.name
    WHERE c.id IS NULL OR c.epoch <> w.epoch OR c.newest <> w.number OR c.is_complete <> w.complete
        OR (c.run IS NOT NULL) <> w.has_run
        OR c.touched_ms < sse.now_ms() - CASE c.newest WHEN 0 THEN @unused_touch_ms@ ELSE @used_touch_ms@ END;
END
$$;

-- Returns the row of a channel, and the offset of its oldest event that is kept; no row where there is no such channel.
CREATE OR REPLACE FUNCTION sse.state(wanted text) RETURNS TABLE (
    epoch text, newest bigint, newest_ms bigint, now_ms bigint, oldest bigint, first bigint, former text,
    is_complete boolean, run_until_ms bigint
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.epoch, c.newest, c.newest_ms, t.now_ms,
        coalesce((
            SELECT e.number FROM sse.events e
            WHERE e.channel_id = c.id AND e.number > c.newest - coalesce(c.max_events, @history@) - c.is_complete::int
                AND (coalesce(c.kept_ms, @history_ms@) = 0 OR e.at_ms > t.now_ms - coalesce(c.kept_ms, @history_ms@))
            ORDER BY e.number LIMIT 1), c.newest + 1),
        c.first, c.former, c.is_complete, c.run_until_ms
    FROM sse.channels c, (SELECT sse.now_ms()) t (now_ms) WHERE c.name = wanted;
END
$$;
