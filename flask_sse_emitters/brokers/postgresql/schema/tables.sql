-- The tables in which channels lie.
--
-- * channels: one row each, which whoever publishes to the channel locks. So offsets have no holes, and are visible in
--   their order.
-- * events: those that are kept, and for some seconds those that are not, for processes that have not read them yet.
-- * keys: what was published with a key.
-- * outbox: events that have no offset yet. Transactions of the app insert them, and lock nothing; they are numbered
--   once that transaction has committed.
-- * processes and presence: who listens, with how many clients. Lost in a crash, and reported again.
-- * holders and members: which processes live, and which members of which channel each has.

SELECT pg_advisory_xact_lock(hashtext('flask_sse_emitters'), hashtext('sse'));

CREATE SCHEMA IF NOT EXISTS sse;

CREATE TABLE IF NOT EXISTS sse.about (
    version int NOT NULL,
    tidied_ms bigint NOT NULL DEFAULT 0,  -- when old rows were last deleted
    tidied_to bigint NOT NULL DEFAULT 0   -- up to this channel
);
ALTER TABLE sse.about ADD COLUMN IF NOT EXISTS  -- names this memory: another one has another
    memory text NOT NULL DEFAULT md5(random()::text || clock_timestamp()::text);

CREATE TABLE IF NOT EXISTS sse.channels (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    epoch text NOT NULL,
    newest bigint NOT NULL DEFAULT 0,     -- the offset of the newest event, or of the end
    newest_ms bigint NOT NULL DEFAULT 0,  -- when that was published
    former text NOT NULL DEFAULT '',      -- where epochs before this one ended: 'epoch:offset ...', the latest first
    first bigint NOT NULL DEFAULT 0,      -- the offset after the last end that something follows
    is_complete boolean NOT NULL DEFAULT false,  -- the newest is the end
    max_events bigint,                    -- the bounds that the channel was last given; none were where it is null
    kept_ms bigint,                       -- 0 is for ever
    run text,                             -- that has the channel
    run_ms bigint,                        -- for how long each of its events lets it have the channel
    run_until_ms bigint,
    server text NOT NULL DEFAULT '',      -- that published last: see sse.server()
    touched_ms bigint NOT NULL            -- when it was last used
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS sse.events (
    channel_id bigint NOT NULL,
    number bigint NOT NULL,               -- the offset
    label text,                           -- the event's name; null where it has no data
    body bytea NOT NULL,                  -- as on the wire, without an id
    at_ms bigint NOT NULL,
    PRIMARY KEY (channel_id, number)
);

CREATE TABLE IF NOT EXISTS sse.keys (
    channel_id bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    at_ms bigint NOT NULL,
    PRIMARY KEY (channel_id, key)
);
CREATE INDEX IF NOT EXISTS keys_at ON sse.keys (at_ms);

CREATE TABLE IF NOT EXISTS sse.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY,
    channel text COLLATE "C" NOT NULL,
    body bytea NOT NULL,                  -- as in sse.events
    label text,
    max_events bigint,                    -- how much is kept of the channel from now on; null leaves that as it is
    kept_ms bigint,
    key text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, id)
);

CREATE UNLOGGED TABLE IF NOT EXISTS sse.processes (
    id text COLLATE "C" PRIMARY KEY,
    about text,                           -- JSON
    seen_ms bigint NOT NULL
);

CREATE UNLOGGED TABLE IF NOT EXISTS sse.presence (
    process text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    clients int NOT NULL,
    PRIMARY KEY (process, channel)
);
CREATE INDEX IF NOT EXISTS presence_channel ON sse.presence (channel);

CREATE TABLE IF NOT EXISTS sse.holders (
    holder text COLLATE "C" PRIMARY KEY,
    until_ms bigint NOT NULL              -- minus that, for one that is being let go
);

CREATE TABLE IF NOT EXISTS sse.members (
    channel text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,     -- an identity, as JSON
    holder text COLLATE "C" NOT NULL,
    PRIMARY KEY (channel, member, holder)
);
CREATE INDEX IF NOT EXISTS members_holder ON sse.members (holder, channel);
