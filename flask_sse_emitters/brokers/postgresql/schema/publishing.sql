-- The functions that publish, and give channels to runs: each is one step, and returns before anybody is told.

-- Adds an event, unless it is not to be: then ``outcome`` says why, and ``event_id`` is that of the one there is.
CREATE OR REPLACE FUNCTION sse.take(
    INOUT c sse.channels, body bytea, label text, events bigint, ms bigint, given_key text, publisher text,
    now_ms bigint, OUT event_id text, OUT outcome text, OUT other_bounds text
) LANGUAGE plpgsql AS $$
BEGIN
    IF given_key IS NOT NULL THEN
        SELECT k.event_id INTO event_id FROM sse.keys k
        WHERE k.channel_id = c.id AND k.key = given_key AND k.at_ms > now_ms - @key_ms@;
        IF FOUND THEN
            outcome := 'old';
            RETURN;
        END IF;
    END IF;
    IF publisher IS NOT NULL THEN
        IF c.run IS DISTINCT FROM publisher THEN
            outcome := 'lost';
            RETURN;
        END IF;
        c.run_until_ms := now_ms + c.run_ms;
    END IF;
    IF label = '@end@' AND c.is_complete THEN
        event_id := c.epoch || '-' || c.newest;
        outcome := 'old';
        RETURN;
    END IF;
    IF events IS NOT NULL THEN
        IF (c.max_events, c.kept_ms) <> (events, ms) THEN
            other_bounds := c.max_events || ' ' || c.kept_ms;
        END IF;
        c.max_events := events;
        c.kept_ms := ms;
    END IF;
    c := sse.append(c, body, label, now_ms);
    event_id := c.epoch || '-' || c.newest;
    outcome := 'new';
    IF given_key IS NOT NULL THEN
        INSERT INTO sse.keys AS k VALUES (c.id, given_key, event_id, now_ms)
        ON CONFLICT (channel_id, key) DO UPDATE SET event_id = excluded.event_id, at_ms = excluded.at_ms;
    END IF;
END
$$;

-- Publishes events to channels: first what waits in the outbox for these, then those that are given. One step.
--
-- ``names`` are in order and differ from each other: so two of these never wait for each other. For each of them there
-- is the newest event that the caller knows of, and where its events begin in what follows; ``starts`` has one more.
--
-- Returns one row for each event that is given, with its ``place`` there; and one for each channel, whose ``place`` is
-- below 0: its position, its time, and whether something is new.
CREATE OR REPLACE FUNCTION sse.publish_all(
    names text[], known_epochs text[], known_offsets bigint[], known_times bigint[], starts int[],
    bodies bytea[], labels text[], events bigint[], lives bigint[], given_keys text[], publishers text[]
) RETURNS TABLE (place int, event_id text, ms bigint, outcome text, other_bounds text) LANGUAGE plpgsql AS $$
DECLARE
    c sse.channels;
    waiting sse.outbox;
    taken record;
    now_ms bigint;
    is_new boolean;
BEGIN
    PERFORM sse.check_transaction();
    FOR number IN 1 .. cardinality(names) LOOP
        c := sse.open_channel(names[number], known_epochs[number], known_offsets[number], known_times[number]);
        now_ms := sse.now_ms();
        is_new := starts[number] = starts[number + 1];
        FOR waiting IN
            WITH gone AS (DELETE FROM sse.outbox o WHERE o.channel = names[number] RETURNING o.*)
            SELECT * FROM gone ORDER BY gone.id
        LOOP
            taken := sse.take(
                c, waiting.body, waiting.label, waiting.max_events, waiting.kept_ms, waiting.key, NULL, now_ms);
            c := taken.c;
            is_new := is_new OR taken.outcome = 'new';
        END LOOP;
        FOR index IN starts[number] .. starts[number + 1] - 1 LOOP
            taken := sse.take(
                c, bodies[index], labels[index], events[index], lives[index], given_keys[index], publishers[index],
                now_ms);
            c := taken.c;
            is_new := is_new OR taken.outcome = 'new';
            place := index; event_id := taken.event_id; ms := c.newest_ms; outcome := taken.outcome;
            other_bounds := taken.other_bounds;
            RETURN NEXT;
        END LOOP;
        IF is_new THEN
            PERFORM sse.save(c);
        END IF;
        place := -number; event_id := c.epoch || '-' || c.newest; ms := c.newest_ms; other_bounds := NULL;
        outcome := CASE WHEN is_new THEN 'new' ELSE 'old' END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Publishes an event when the transaction of the caller commits: for SQL, triggers, and other languages.
CREATE OR REPLACE FUNCTION sse.publish(
    channel text, data text, event text DEFAULT NULL, retry int DEFAULT NULL, key text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lf text := chr(10);
    lines text := '';
BEGIN
    IF channel IS NULL OR channel !~ '^([A-Za-z0-9._:/@-]{1,200}|~[A-Za-z0-9._~%@:+!-]{1,200})$' THEN
        RAISE EXCEPTION 'a channel has 1 to 200 ASCII letters, digits and . _ - : / @, unlike %', quote_nullable(channel)
            USING ERRCODE = '22023';
    ELSIF event IN ('gap', '@end@') OR event ~ '[\r\n]' THEN
        RAISE EXCEPTION 'no event can have this name: %', quote_literal(event) USING ERRCODE = '22023';
    ELSIF retry < 0 THEN
        RAISE EXCEPTION 'retry is milliseconds, 0 or more, not %', retry USING ERRCODE = '22023';
    END IF;
    IF event IS NOT NULL THEN
        lines := lines || 'event: ' || event || lf;
    END IF;
    IF retry IS NOT NULL THEN
        lines := lines || 'retry: ' || retry || lf;
    END IF;
    IF data IS NOT NULL THEN
        lines := lines || 'data: ' || regexp_replace(data, '\r\n|\r|\n', lf || 'data: ', 'g') || lf;
    END IF;
    IF octet_length(lines) > @max_bytes@ THEN
        RAISE EXCEPTION 'the event has % bytes, and @max_bytes@ are allowed', octet_length(lines) USING ERRCODE = '22023';
    END IF;
    INSERT INTO sse.outbox (channel, body, label, key) VALUES (
        channel, convert_to(lines || lf, 'UTF8'), CASE WHEN data IS NOT NULL THEN coalesce(event, 'message') END, key);
    PERFORM pg_notify('sse', 'o' || to_json(channel));
END
$$;

CREATE OR REPLACE FUNCTION sse.publish(
    channel text, data jsonb, event text DEFAULT NULL, retry int DEFAULT NULL, key text DEFAULT NULL
) RETURNS void LANGUAGE sql AS $$
    SELECT sse.publish(channel, data::text, event, retry, key)
$$;

-- Tells all processes. By itself, and not waiting for the disk: it holds up all other transactions that tell something.
CREATE OR REPLACE FUNCTION sse.announce(messages text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_notify('sse', message) FROM unnest(messages) message;
END
$$;

CREATE OR REPLACE FUNCTION sse.start_run(
    wanted text, known_epoch text, known_offset bigint, known_ms bigint, publisher text, lease_ms bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c sse.channels;
BEGIN
    PERFORM sse.check_transaction();
    c := sse.open_channel(wanted, known_epoch, known_offset, known_ms);
    IF c.run IS NULL THEN
        c := sse.begin_anew(c);
        c.run := publisher;
        c.run_ms := lease_ms;
        c.run_until_ms := sse.now_ms() + lease_ms;
        PERFORM sse.save(c);
    END IF;
    RETURN c.run = publisher;
END
$$;

CREATE OR REPLACE FUNCTION sse.renew_run(wanted text, publisher text, lease_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sse.channels SET run_until_ms = sse.now_ms() + lease_ms
    WHERE name = wanted AND run = publisher AND run_until_ms > sse.now_ms();
    RETURN FOUND;
END
$$;

CREATE OR REPLACE FUNCTION sse.cancel_run(
    wanted text, known_epoch text, known_offset bigint, known_ms bigint, events bigint, ms bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c sse.channels;
BEGIN
    PERFORM sse.check_transaction();
    c := sse.open_channel(wanted, known_epoch, known_offset, known_ms);
    IF c.run IS NULL THEN
        RETURN false;
    END IF;
    c.max_events := coalesce(events, c.max_events);
    c.kept_ms := CASE WHEN events IS NULL THEN c.kept_ms ELSE ms END;
    PERFORM sse.save(sse.append(c, '', '@end@', sse.now_ms()));
    RETURN true;
END
$$;
