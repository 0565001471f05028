-- The functions that keep members: which holders live, and what each has of which channel.

-- Lets a holder live for longer, or a new one begin; with is_away all others, too. Returns the holder, and in the rows
-- after it each channel of those that are to be let go, as nobody else does that now.
CREATE OR REPLACE FUNCTION sse.renew_members(given text, new_name text, ms bigint, is_away boolean)
RETURNS TABLE (name text, channel text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    now_ms bigint := sse.now_ms();
    dead text;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF is_away THEN
        UPDATE sse.holders SET until_ms = now_ms + ms
        WHERE holder IN (SELECT holder FROM sse.holders WHERE until_ms BETWEEN 1 AND now_ms + ms FOR UPDATE SKIP LOCKED);
    END IF;
    UPDATE sse.holders SET until_ms = now_ms + ms WHERE holder = given AND (until_ms > now_ms OR is_away AND until_ms > 0);
    name := given;
    IF NOT FOUND THEN
        name := coalesce((SELECT a.memory FROM sse.about a LIMIT 1), '') || '.' || new_name;
        INSERT INTO sse.holders VALUES (name, now_ms + ms);
    END IF;
    RETURN NEXT;
    IF given = '' THEN
        RETURN;
    END IF;
    FOR dead IN
        UPDATE sse.holders SET until_ms = -now_ms - @claim_ms@ WHERE holder IN (
            SELECT holder FROM sse.holders
            WHERE until_ms <= now_ms AND (until_ms > 0 OR -until_ms <= now_ms) FOR UPDATE SKIP LOCKED)
        RETURNING holder
    LOOP
        RETURN QUERY SELECT DISTINCT dead, m.channel FROM sse.members m WHERE m.holder = dead;
        name := dead; channel := NULL;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Publishes that a member has come, or is gone.
CREATE OR REPLACE FUNCTION sse.append_member(c sse.channels, event text, member text, now_ms bigint)
RETURNS sse.channels LANGUAGE plpgsql AS $$
BEGIN
    RETURN sse.append(
        c, convert_to('event: ' || event || chr(10) || 'data: {"identity": ' || member || '}' || repeat(chr(10), 2), 'UTF8'),
        event, now_ms);
END
$$;

-- Notes who has come to a holder, and who is gone, and publishes what is new: nothing where it is quiet, or the channel
-- is complete. With is_all those that have come are all; returns whether there may be more of the others, and how far
-- the channel is where something was published.
CREATE OR REPLACE FUNCTION sse.tell_members(
    teller text, wanted text, known_epoch text, known_offset bigint, known_ms bigint, come text[], gone text[],
    is_all boolean, is_quiet boolean, events bigint, ms bigint, OUT has_more boolean, OUT event_id text
) LANGUAGE plpgsql AS $$
DECLARE
    c sse.channels;
    who text;
    now_ms bigint;
    before bigint;
    others int := 0;
    is_known boolean;
BEGIN
    PERFORM sse.check_transaction();
    c := sse.open_channel(wanted, known_epoch, known_offset, known_ms);
    now_ms := sse.now_ms();
    before := c.newest;
    is_quiet := is_quiet OR c.is_complete;
    IF events IS NOT NULL THEN
        c.max_events := events;
        c.kept_ms := ms;
    END IF;
    FOREACH who IN ARRAY come LOOP
        is_known := EXISTS (SELECT FROM sse.members m WHERE m.channel = wanted AND m.member = who);
        INSERT INTO sse.members VALUES (wanted, who, teller) ON CONFLICT DO NOTHING;
        IF NOT (is_known OR is_quiet) THEN
            c := sse.append_member(c, 'join', who, now_ms);
        END IF;
    END LOOP;
    IF is_all THEN
        gone := ARRAY(
            SELECT m.member FROM sse.members m WHERE m.holder = teller AND m.channel = wanted
            EXCEPT SELECT unnest(come) LIMIT @gone_at_once@);
        others := cardinality(gone);
    END IF;
    FOREACH who IN ARRAY gone LOOP
        DELETE FROM sse.members m WHERE m.channel = wanted AND m.member = who AND m.holder = teller;
        IF FOUND AND NOT (is_quiet OR EXISTS (SELECT FROM sse.members m WHERE m.channel = wanted AND m.member = who)) THEN
            c := sse.append_member(c, 'leave', who, now_ms);
        END IF;
    END LOOP;
    has_more := others = @gone_at_once@;
    IF c.newest > before THEN
        PERFORM sse.save(c);
        event_id := c.epoch || '-' || c.newest;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION sse.list_members(wanted text) RETURNS TABLE (member text) LANGUAGE sql STABLE AS $$
    SELECT DISTINCT m.member FROM sse.members m JOIN sse.holders h USING (holder)
    WHERE m.channel = wanted AND h.until_ms > sse.now_ms()
$$;
