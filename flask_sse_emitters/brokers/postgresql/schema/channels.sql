-- The functions that change one channel, whose row their caller has locked: each takes the row and returns it changed.
--
-- Nothing is saved before sse.save().

CREATE OR REPLACE FUNCTION sse.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE OR REPLACE FUNCTION sse.new_epoch() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT string_agg(
        substr('0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ', 1 + floor(random() * 62)::int, 1), '')
    FROM generate_series(1, @epoch_length@)
$$;

-- Names what may lack events that were confirmed elsewhere: each server that is promoted has another timeline, and a
-- table that was restored another number.
CREATE OR REPLACE FUNCTION sse.server() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '/' || 'sse.channels'::regclass::oid
$$;

CREATE OR REPLACE FUNCTION sse.check_transaction() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN  -- others have published since it began
        RAISE EXCEPTION 'events are published in transactions that are READ COMMITTED, not %',
            upper(current_setting('transaction_isolation')) USING ERRCODE = 'SSE01';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN  -- a crash would lose what was confirmed
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION sse.change_epoch(c sse.channels) RETURNS sse.channels LANGUAGE plpgsql AS $$
BEGIN
    c.former := array_to_string(
        (c.epoch || ':' || c.newest || string_to_array(c.former, ' '))[1:@former_epochs@], ' ');
    c.epoch := sse.new_epoch();
    RETURN c;
END
$$;

-- What follows an end begins another epoch.
CREATE OR REPLACE FUNCTION sse.begin_anew(c sse.channels) RETURNS sse.channels LANGUAGE plpgsql AS $$
BEGIN
    IF c.is_complete THEN
        c := sse.change_epoch(c);
        c.first := c.newest + 1;
        c.is_complete := false;
    END IF;
    RETURN c;
END
$$;

-- Deletes events that are beyond the bounds.
CREATE OR REPLACE FUNCTION sse.drop_old(c sse.channels, now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    least_kept bigint := c.newest - coalesce(c.max_events, @history@) - c.is_complete::int + 1;
    kept bigint := coalesce(c.kept_ms, @history_ms@);
    first_kept bigint;
    upto bigint;
BEGIN
    SELECT number INTO first_kept FROM sse.events
    WHERE channel_id = c.id AND (
        at_ms > now_ms - @grace_ms@ OR (number >= least_kept AND (kept = 0 OR at_ms > now_ms - kept)))
    ORDER BY number LIMIT 1;
    SELECT max(number) INTO upto FROM (
        SELECT number FROM sse.events WHERE channel_id = c.id AND number < coalesce(first_kept, c.newest + 1)
        ORDER BY number LIMIT @deleted@) old;
    IF upto IS NOT NULL THEN
        DELETE FROM sse.events WHERE channel_id = c.id AND number <= upto;
    END IF;
END
$$;

-- Adds an event, or the end. Where another server publishes than before, which may lack events that were confirmed,
-- offsets go on under another epoch: so none of them gets the id of a lost one.
CREATE OR REPLACE FUNCTION sse.append(c sse.channels, body bytea, label text, now_ms bigint) RETURNS sse.channels
LANGUAGE plpgsql AS $$
DECLARE
    server_now text := sse.server();
BEGIN
    IF c.is_complete THEN
        c := sse.begin_anew(c);
    ELSIF c.server <> server_now AND c.newest > 0 THEN
        c := sse.change_epoch(c);
    END IF;
    c.server := server_now;
    c.newest := c.newest + 1;
    c.newest_ms := now_ms;
    c.touched_ms := now_ms;
    INSERT INTO sse.events VALUES (c.id, c.newest, label, body, now_ms);
    IF label = '@end@' THEN
        c.is_complete := true;
        c.run := NULL; c.run_ms := NULL; c.run_until_ms := NULL;
    END IF;
    IF c.newest % @events_per_deletion@ = 0 THEN
        PERFORM sse.drop_old(c, now_ms);
    END IF;
    RETURN c;
END
$$;

-- Makes good that the database lacks an event that a process knows of, as after a failover, or a TRUNCATE. Offsets go on
-- after that one in a new epoch: streams that have it go on, and clients that lack some of what is lost get a gap.
CREATE OR REPLACE FUNCTION sse.mend(c sse.channels, known_epoch text, known_offset bigint, known_ms bigint)
RETURNS sse.channels LANGUAGE plpgsql AS $$
DECLARE
    ended bigint;
    there bigint;
BEGIN
    IF known_epoch = c.epoch AND known_offset <= c.newest THEN
        there := c.newest_ms;
        IF known_offset < c.newest THEN
            SELECT at_ms INTO there FROM sse.events WHERE channel_id = c.id AND number = known_offset;
        END IF;
        IF there <> known_ms THEN  -- its id was given to another event
            c.epoch := sse.new_epoch();
            c.former := '';
            DELETE FROM sse.events WHERE channel_id = c.id;
        END IF;
        RETURN c;
    END IF;
    IF known_epoch <> c.epoch THEN
        ended := substring(' ' || c.former FROM ' ' || known_epoch || ':([0-9]+)');
        IF ended IS NULL AND c.newest = 0 AND known_offset = 0 THEN  -- neither had an event
            c.former := array_to_string(
                (concat(known_epoch, ':', 0) || string_to_array(c.former, ' '))[1:@former_epochs@], ' ');
            RETURN c;
        ELSIF known_offset <= coalesce(ended, 0) OR (ended IS NULL AND c.newest > 0) THEN
            RETURN c;  -- nothing is lost; or nobody knows
        ELSIF c.newest > ended THEN  -- others have gone on, and do not know what they lack
            c.epoch := sse.new_epoch();
            c.former := '';
            RETURN c;
        END IF;
    ELSE
        c.epoch := sse.new_epoch();
    END IF;
    c.former := known_epoch || ':' || known_offset;
    c.newest := known_offset;
    c.newest_ms := known_ms;
    c.is_complete := false;
    DELETE FROM sse.events WHERE channel_id = c.id;
    RETURN c;
END
$$;

CREATE OR REPLACE FUNCTION sse.save(c sse.channels) RETURNS void LANGUAGE plpgsql AS $$
BEGIN  -- its plan is kept, unlike that of a function in SQL
    UPDATE sse.channels SET
        epoch = c.epoch, newest = c.newest, newest_ms = c.newest_ms, former = c.former, first = c.first,
        is_complete = c.is_complete, max_events = c.max_events, kept_ms = c.kept_ms, run = c.run, run_ms = c.run_ms,
        run_until_ms = c.run_until_ms, server = c.server, touched_ms = c.touched_ms
    WHERE id = c.id;
END
$$;

-- Locks a channel, which begins with that, and returns its row; ends its run where that is dead.
CREATE OR REPLACE FUNCTION sse.open_channel(wanted text, known_epoch text, known_offset bigint, known_ms bigint)
RETURNS sse.channels LANGUAGE plpgsql AS $$
DECLARE
    c sse.channels;
    was sse.channels;
    now_ms bigint;
BEGIN
    LOOP
        SELECT * INTO c FROM sse.channels WHERE name = wanted FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO sse.channels (name, epoch, server, touched_ms)
        VALUES (wanted, sse.new_epoch(), sse.server(), sse.now_ms())
        ON CONFLICT (name) DO NOTHING RETURNING * INTO c;
        EXIT WHEN FOUND;
    END LOOP;
    was := c;
    now_ms := sse.now_ms();
    IF known_epoch <> '' THEN
        c := sse.mend(c, known_epoch, known_offset, known_ms);
    END IF;
    IF c.run_until_ms <= now_ms THEN
        c := sse.append(c, '@interrupted@', 'interrupted', now_ms);
        c := sse.append(c, '', '@end@', now_ms);
    END IF;
    IF c.touched_ms < now_ms - @touch_ms@ THEN
        c.touched_ms := now_ms;
    END IF;
    IF c IS DISTINCT FROM was THEN
        PERFORM sse.save(c);
    END IF;
    RETURN c;
END
$$;
