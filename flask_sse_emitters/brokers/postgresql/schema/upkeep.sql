-- The functions that each process calls now and then: what waits, what is too old, and who listens.

-- Publishes what was left in the outbox, and returns how far these channels are. One that somebody publishes to now is
-- left to that, and has no position: what waits may have come too late for it.
CREATE OR REPLACE FUNCTION sse.sweep() RETURNS TABLE (channel text, event_id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted text;
BEGIN
    FOR wanted IN  -- in the order in which all lock channels, so that two never wait for each other
        SELECT DISTINCT o.channel FROM (SELECT channel FROM sse.outbox LIMIT @waiting@) o ORDER BY o.channel
    LOOP
        PERFORM 1 FROM sse.channels WHERE name = wanted FOR UPDATE SKIP LOCKED;
        IF FOUND OR NOT EXISTS (SELECT FROM sse.channels WHERE name = wanted) THEN
            RETURN QUERY
            SELECT wanted, p.event_id
            FROM sse.publish_all(
                ARRAY[wanted], '{}', '{}', '{}', ARRAY[1, 1], '{}', '{}', '{}', '{}', '{}', '{}') p
            WHERE p.place < 0;
        ELSE
            channel := wanted; event_id := NULL;
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM sse.tidy();
END
$$;

-- Deletes some of what is too old. One process does it at a time, and none waits for another.
CREATE OR REPLACE FUNCTION sse.tidy() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := sse.now_ms();
    about sse.about;
    c sse.channels;
    reached bigint := 0;
BEGIN
    SELECT * INTO about FROM sse.about WHERE tidied_ms NOT BETWEEN now_ms - @tidy_ms@ AND now_ms FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM sse.keys WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM sse.keys WHERE at_ms <= now_ms - @key_ms@ ORDER BY at_ms LIMIT @rows@));
    WITH dead AS (DELETE FROM sse.processes WHERE seen_ms < now_ms - @presence_ms@ RETURNING id)
    DELETE FROM sse.presence USING dead WHERE process = dead.id;
    FOR c IN
        SELECT * FROM sse.channels WHERE id > about.tidied_to ORDER BY id LIMIT @tidied@ FOR UPDATE SKIP LOCKED
    LOOP
        reached := c.id;
        PERFORM sse.drop_old(c, now_ms);
        IF c.run IS NULL AND c.touched_ms < now_ms - (CASE c.newest WHEN 0 THEN @unused_ms@ ELSE @used_ms@ END)
            AND NOT EXISTS (SELECT FROM sse.events WHERE channel_id = c.id) THEN
            DELETE FROM sse.keys WHERE channel_id = c.id;
            DELETE FROM sse.channels WHERE id = c.id;
        END IF;
    END LOOP;
    UPDATE sse.about SET tidied_ms = now_ms, tidied_to = reached;
END
$$;

-- Sets the clients of one process: all of them, or what has changed. Returns whether the process was known.
CREATE OR REPLACE FUNCTION sse.report(reporter text, facts text, names text[], counts int[], is_all boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    was_known boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE sse.processes SET seen_ms = sse.now_ms(), about = coalesce(facts, about) WHERE id = reporter;
    was_known := FOUND;
    IF NOT was_known THEN
        INSERT INTO sse.processes VALUES (reporter, facts, sse.now_ms()) ON CONFLICT DO NOTHING;
    END IF;
    IF is_all THEN
        DELETE FROM sse.presence WHERE process = reporter;
    ELSE
        DELETE FROM sse.presence WHERE process = reporter AND channel = ANY (names);
    END IF;
    INSERT INTO sse.presence SELECT reporter, w.name, w.clients FROM unnest(names, counts) w (name, clients)
    WHERE w.clients > 0;
    RETURN was_known;
END
$$;

CREATE OR REPLACE FUNCTION sse.leave(reporter text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM sse.presence WHERE process = reporter;
    DELETE FROM sse.processes WHERE id = reporter;
$$;

CREATE OR REPLACE FUNCTION sse.count_clients(wanted text, asker text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(p.clients), 0)::bigint FROM sse.presence p JOIN sse.processes q ON q.id = p.process
    WHERE p.channel = wanted AND q.id <> asker AND q.seen_ms > sse.now_ms() - @presence_ms@
$$;

CREATE OR REPLACE FUNCTION sse.list_processes(asker text) RETURNS TABLE (
    id text, about text, age_ms bigint, channels text[], clients int[]
) LANGUAGE sql STABLE AS $$
    SELECT q.id, q.about, greatest(sse.now_ms() - q.seen_ms, 0),
        array_agg(p.channel ORDER BY p.channel) FILTER (WHERE p.channel IS NOT NULL),
        array_agg(p.clients ORDER BY p.channel) FILTER (WHERE p.channel IS NOT NULL)
    FROM sse.processes q LEFT JOIN sse.presence p ON p.process = q.id
    WHERE q.id <> asker AND q.seen_ms > sse.now_ms() - @presence_ms@
    GROUP BY q.id, q.about, q.seen_ms ORDER BY q.seen_ms
$$;

INSERT INTO sse.about (version) SELECT @version@ WHERE NOT EXISTS (SELECT FROM sse.about);
UPDATE sse.about SET version = @version@ WHERE version < @version@;

-- The role of an app, and of a Publisher, needs this, unless it owns the schema:
--     GRANT USAGE ON SCHEMA sse TO app;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sse TO app;
-- A role whose statements only call sse.publish(), also in triggers, needs this:
--     GRANT USAGE ON SCHEMA sse TO other;
--     GRANT INSERT ON sse.outbox TO other;
