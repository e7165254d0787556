-- The archive's only "now". A function of its own, so that a test can turn the clock.
CREATE FUNCTION archive_now() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

-- One row: which key ring belongs to this database, how far its clock was seen to go, up to which
-- expiry day people let a blown fuse go on, why erasing is held until they do, and whether the
-- database is being rebuilt (storage/upkeep/rebuild.py), which nothing may be done beside.
CREATE TABLE archive (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ring text,
    clock_mark timestamptz,
    released_through date,
    hold text,
    rebuilding boolean NOT NULL DEFAULT false
);
INSERT INTO archive DEFAULT VALUES;

-- Bearer keys. Of a secret stands here its HMAC under a key of the ring, which is not in the database:
-- a stolen copy cannot even be compared with. After a rotation the former secret holds for a while.
CREATE TABLE access_key (
    id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    level text NOT NULL CHECK (level IN ('uploader', 'supervisor', 'privacy', 'auditor', 'admin')),
    source text,
    call_types text[],
    networks cidr[] CHECK (cardinality(networks) > 0),
    rate text CHECK (rate ~ '^[1-9][0-9]{0,5}/(s|min|h)$'),
    quota bigint CHECK (quota > 0),
    secret bytea NOT NULL CHECK (length(secret) = 32),
    former bytea CHECK (length(former) = 32),
    former_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT archive_now(),
    used_at timestamptz,
    revoked_at timestamptz,
    CHECK ((source IS NOT NULL) = (level = 'uploader')),
    CHECK (call_types IS NULL OR level IN ('supervisor', 'privacy')),
    CHECK (quota IS NULL OR level = 'uploader'),
    CHECK ((former IS NULL) = (former_until IS NULL))
);

-- How many bytes a key with a quota handed over on a day. In several rows, so that uploads which are
-- committed at the same time do not wait for each other.
CREATE TABLE handed_over (
    key text NOT NULL REFERENCES access_key,
    day date NOT NULL,
    part smallint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (key, day, part)
);

-- A recording, from its intent to its tombstone. What identifies people stands in `details` alone,
-- sealed; `call_hash` and `digest` are HMACs under keys of the ring.
CREATE TABLE recording (
    id uuid PRIMARY KEY,
    source text NOT NULL,
    call_type text NOT NULL,
    expires_on date NOT NULL,
    state text NOT NULL
        CHECK (state IN ('receiving', 'stored', 'erasing', 'erased', 'abandoned')),
    epoch integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    attempt uuid,
    call_hash bytea,
    digest bytea,
    started_at timestamptz,
    expires_at timestamptz,
    rule text,
    received_at timestamptz,
    direction text,
    duration double precision,
    bytes bigint,
    channels smallint,
    sample_rate integer,
    codec text,
    container text,
    flaws text[],
    header bytea,
    details bytea,
    -- What became known after it was stored, sealed like the details; the object has nothing of it.
    added bytea,
    -- When its object was last read back whole; and, while it is not whole, when that was last seen.
    verified_at timestamptz,
    damaged_at timestamptz,
    -- Somebody holds it, until a named time, or it is at rest.
    CHECK ((lease_until IS NOT NULL) = (state IN ('receiving', 'erasing', 'abandoned'))),
    -- A recording that exists has all that is needed to open it.
    CHECK (state NOT IN ('receiving', 'stored') OR num_nulls(attempt, call_hash, digest, started_at,
        expires_at, rule, received_at, duration, bytes, channels, sample_rate, codec, container,
        flaws, header, details) = 0),
    -- A tombstone has nothing but its id, source, type and day (and the hash, until its year ends).
    CHECK (state <> 'erased' OR num_nonnulls(attempt, digest, started_at, expires_at, rule,
        received_at, direction, duration, bytes, channels, sample_rate, codec, container, flaws,
        header, details, added, verified_at, damaged_at) = 0),
    CHECK (state <> 'abandoned' OR num_nonnulls(call_hash, digest, header, details) = 0)
);
CREATE UNIQUE INDEX recording_call ON recording (source, call_hash);
CREATE INDEX recording_due ON recording (expires_at) WHERE state IN ('stored', 'erasing');
CREATE INDEX recording_day ON recording (expires_on);
CREATE INDEX recording_held ON recording (lease_until)
    WHERE state IN ('receiving', 'erasing', 'abandoned');
CREATE INDEX recording_newest ON recording (started_at, id) WHERE state = 'stored';
CREATE INDEX recording_type ON recording (call_type, started_at, id) WHERE state = 'stored';
CREATE INDEX recording_source ON recording (source, started_at, id) WHERE state = 'stored';
CREATE INDEX recording_direction ON recording (direction, started_at, id) WHERE state = 'stored';
-- Long calls are rare: without a fine histogram the planner takes a search for them for a wide one.
ALTER TABLE recording ALTER COLUMN duration SET STATISTICS 1000;
CREATE INDEX recording_duration ON recording (duration) WHERE state = 'stored';
-- What is to be read back next. An upload is in the first, which stays small, and leaves it for the
-- second after an hour or so; the third is empty while all is well.
CREATE INDEX recording_unverified ON recording (received_at)
    WHERE state = 'stored' AND verified_at IS NULL AND damaged_at IS NULL;
CREATE INDEX recording_verified ON recording (verified_at)
    WHERE state = 'stored' AND verified_at IS NOT NULL AND damaged_at IS NULL;
CREATE INDEX recording_damaged ON recording (damaged_at)
    WHERE state = 'stored' AND damaged_at IS NOT NULL;

-- The steps of archive/lifecycle.py and no others.
CREATE FUNCTION refuse_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a recording cannot go from % to %', OLD.state, NEW.state;
END $$;
CREATE TRIGGER recording_step BEFORE UPDATE OF state ON recording FOR EACH ROW
    WHEN ((OLD.state, NEW.state) NOT IN (('receiving', 'stored'), ('receiving', 'abandoned'),
        ('stored', 'erasing'), ('erasing', 'erasing'), ('erasing', 'erased')))
    EXECUTE FUNCTION refuse_step();

-- What a sealed detail can be found by: an HMAC under the expiry day's key, cut to 64 bits.
CREATE TABLE term (
    expires_on date NOT NULL,
    hash bigint NOT NULL,
    started_at timestamptz NOT NULL,
    recording uuid NOT NULL,
    PRIMARY KEY (expires_on, hash, started_at, recording)
);

-- Which expiry days the calls of a (UTC) day are filed under: a search by a keyed hash goes through
-- these newest first, and stops as soon as its page is full.
CREATE TABLE filed (
    started_on date NOT NULL,
    expires_on date NOT NULL,
    PRIMARY KEY (started_on, expires_on)
);
CREATE INDEX filed_day ON filed (expires_on);

-- Every act: who, what, when. Nothing personal; `details` are sealed under the key of an expiry day. An act
-- is written down here, in its own transaction, and waits to be given its place in the ledger.
CREATE TABLE ledger_waiting (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT archive_now(),
    actor text NOT NULL,
    act text NOT NULL,
    recording uuid,
    facts jsonb NOT NULL DEFAULT '{}',
    ends_on date,
    details bytea
);

-- The ledger: positions from 0 on without a gap, given by one at a time (storage/tree.py). `sealed`
-- is the SHA-256 of the sealed details: they can be lost or destroyed, and the proofs stay.
CREATE TABLE ledger (
    position bigint PRIMARY KEY CHECK (position >= 0),
    at timestamptz NOT NULL,
    actor text NOT NULL,
    act text NOT NULL,
    recording uuid,
    facts jsonb NOT NULL,
    sealed text,
    ends_on date,
    details bytea
);
-- With the act: asked for both, a planner without statistics would walk every storing in `ledger_act` as well.
CREATE INDEX ledger_recording ON ledger (recording, act) WHERE recording IS NOT NULL;
-- What certificates are made of besides: the closing of a day, and the account of a night. And what
-- the fuse and the figures ask for.
CREATE INDEX ledger_day ON ledger (act, (facts->>'day'), (facts->>'night'), position)
    WHERE act IN ('day.closed', 'night.done', 'days.frozen', 'fuse.release_asked', 'fuse.released',
        'reconciled');
-- What was stored for an expiry day since a position.
CREATE INDEX ledger_stored ON ledger ((facts->>'day'), position) WHERE act IN ('stored', 'rebuilt');
CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only ever added to';
END $$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
-- What waits is taken away only by who gives it its place.
CREATE TRIGGER ledger_waiting_as_written BEFORE UPDATE OR TRUNCATE ON ledger_waiting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();

-- The ledger, and after it what waits for its place.
CREATE VIEW told AS
    SELECT position, at, actor, act, recording, facts FROM ledger
    UNION ALL
    SELECT 9223372036854775807, at, actor, act, recording, facts FROM ledger_waiting;

-- One row: how many entries the ledger has, and how many of them are published in the object store.
-- Whoever adds some holds its lock.
CREATE TABLE ledger_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    size bigint NOT NULL DEFAULT 0,
    published bigint NOT NULL DEFAULT 0
);
INSERT INTO ledger_head DEFAULT VALUES;

-- The hashes of the ledger's tree, 256 to a tile: level 0 those of the entries, each further level
-- those of whole tiles below it (C2SP tlog-tiles). All of it can be made again from the ledger.
CREATE TABLE ledger_tile (
    level smallint NOT NULL,
    number bigint NOT NULL,
    hashes bytea NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, number)
);

-- One row an expiry day: when what is due was compared with what was frozen, what was erased, and
-- when the day's key went.
CREATE TABLE day (
    expires_on date PRIMARY KEY,
    compared_at timestamptz,
    erased bigint NOT NULL DEFAULT 0,
    closed_at timestamptz
);

-- What will be due on each expiry day, as the last night saw it: how many recordings, and the Merkle
-- root over their ids. The ledger's last `days.frozen` has the root over all of these lines.
CREATE TABLE frozen (
    expires_on date PRIMARY KEY,
    count bigint NOT NULL CHECK (count > 0),
    root bytea NOT NULL CHECK (length(root) = 32)
);

-- One row a run of the nightly job.
CREATE TABLE night (
    ran_at timestamptz PRIMARY KEY,
    report jsonb NOT NULL
);

-- Scopes. A reader may be limited to queues and teams besides call types; a team is a set of agents
-- and queues, sealed under a key of the ring (storage/scopes.py).
ALTER TABLE access_key
    ADD COLUMN queues text[] CHECK (cardinality(queues) > 0),
    ADD COLUMN teams text[] CHECK (cardinality(teams) > 0),
    ADD CHECK (num_nonnulls(queues, teams) = 0 OR level IN ('supervisor', 'privacy'));
CREATE TABLE team (
    name text PRIMARY KEY,
    members bytea NOT NULL
);

-- Until when somebody who said why may hear a recording; what they said is in the ledger, sealed.
CREATE TABLE reason (
    actor text NOT NULL,
    recording uuid NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (actor, recording)
);
CREATE INDEX reason_over ON reason (until);

-- One row a listener, a person where it is said whose a key or account is: what they heard of late and
-- when each was last heard, when their budget last stopped them, and when that was last told.
CREATE TABLE listener (
    who text PRIMARY KEY,
    recordings uuid[] NOT NULL,
    heard timestamptz[] NOT NULL,
    stopped_at timestamptz,
    told_at timestamptz,
    CHECK (cardinality(recordings) = cardinality(heard))
);
CREATE INDEX listener_stopped ON listener (stopped_at) WHERE stopped_at IS NOT NULL;

-- People. Of a password stands here its Argon2id hash, which is made with a key of the ring; the secret
-- of the second factor is sealed under another. Whom a provider vouches for has neither, and is known
-- by an HMAC of what the provider calls them. `initial_until`: somebody else made the password, so that
-- it opens nothing but the page where its owner makes one, until then.
CREATE TABLE account (
    id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    level text NOT NULL CHECK (level IN ('supervisor', 'privacy', 'auditor', 'admin')),
    call_types text[],
    queues text[] CHECK (cardinality(queues) > 0),
    teams text[] CHECK (cardinality(teams) > 0),
    subject bytea UNIQUE CHECK (length(subject) = 32),
    password text,
    initial_until timestamptz,
    second_factor boolean NOT NULL DEFAULT true,
    factor bytea,
    factor_step bigint,
    created_at timestamptz NOT NULL DEFAULT archive_now(),
    signed_in_at timestamptz,
    locked_at timestamptz,
    CHECK (num_nonnulls(call_types, queues, teams) = 0 OR level IN ('supervisor', 'privacy')),
    CHECK ((subject IS NULL) = (password IS NOT NULL))
);

-- Who is signed in. The id is an HMAC of what the browser holds; a session whose `setup` is set opens
-- only the page where a password and a second factor (sealed there meanwhile) are set up.
CREATE TABLE session (
    id bytea PRIMARY KEY CHECK (length(id) = 32),
    account text NOT NULL REFERENCES account ON DELETE CASCADE,
    setup bytea,
    idle interval NOT NULL,
    began_at timestamptz NOT NULL DEFAULT archive_now(),
    seen_at timestamptz NOT NULL DEFAULT archive_now(),
    ends_at timestamptz NOT NULL
);
CREATE INDEX session_account ON session (account);

-- How often signing in failed of late, by the HMAC of a name, of an address, or of «no such name».
CREATE TABLE sign_in_try (
    mark bytea PRIMARY KEY CHECK (length(mark) = 32),
    failures integer NOT NULL DEFAULT 0,
    tried_at timestamptz NOT NULL DEFAULT archive_now()
);
CREATE INDEX sign_in_try_age ON sign_in_try (tried_at);

-- Which sign-ins by a provider were done, while they could be shown again.
CREATE TABLE sign_in_done (
    mark bytea PRIMARY KEY CHECK (length(mark) = 32),
    at timestamptz NOT NULL DEFAULT archive_now()
);

-- Calls that were answered, as their systems say: what ought to have a recording. `hashes` are those of
-- the call ids under which it may be, as in `recording`; `call_hash` is the call's own. Who spoke is
-- sealed under the key of the expiry day, and goes as soon as the recording is found and has it; the
-- row goes with that recording.
CREATE TABLE cdr (
    source text NOT NULL,
    call_hash bytea NOT NULL CHECK (length(call_hash) = 32),
    hashes bytea[] NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    expires_on date NOT NULL,
    received_at timestamptz NOT NULL,
    actor text NOT NULL,
    recording uuid,
    details bytea,
    PRIMARY KEY (source, call_hash),
    CHECK (recording IS NULL OR details IS NULL)
);
CREATE INDEX cdr_due ON cdr (expires_at);
CREATE INDEX cdr_day ON cdr (expires_on);
CREATE INDEX cdr_started ON cdr (started_at);
CREATE INDEX cdr_recording ON cdr (recording) WHERE recording IS NOT NULL;
CREATE INDEX cdr_waiting ON cdr (received_at) WHERE recording IS NULL;
-- Whose a key or an account is, where the operator says so. `holder` is everybody who can ask for
-- something or grant it. Two of them are two people where it is said whose both are; where it is not,
-- the one may be the other.
ALTER TABLE access_key ADD COLUMN person text;
ALTER TABLE account ADD COLUMN person text;
CREATE VIEW holder AS
    SELECT id, name, level, person, revoked_at IS NULL AS valid FROM access_key
    UNION ALL
    SELECT id, name, level, person, locked_at IS NULL FROM account;
CREATE FUNCTION two_people(one text, other text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM holder a JOIN holder b ON a.person <> b.person
        WHERE a.id = one AND b.id = other)
$$;
-- Uploads that come in parts (tus). The bytes lie in a file of the service whose `place` it is, sealed
-- under the key in `header`, which the key of the day wraps on which the upload expires; `received`
-- of the body's bytes are there for certain, in `stored` bytes of the file. `details`, sealed too, are
-- what was said of the call. Once it is a recording, only its name and that of the recording stay, and
-- for the receipt the recording's digest, sealed.
CREATE TABLE upload (
    id uuid PRIMARY KEY,
    key text NOT NULL REFERENCES access_key,
    place text NOT NULL,
    expires_at timestamptz NOT NULL,
    length bigint CHECK (length > 0),
    received bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    header bytea,
    details bytea,
    recording uuid,
    digest bytea,
    CHECK ((recording IS NULL) = (digest IS NULL)),
    CHECK (length IS NULL OR received <= length),
    CHECK (num_nulls(header, details) = CASE WHEN recording IS NULL THEN 0 ELSE 2 END),
    CHECK (recording IS NULL OR received = length)
);
CREATE INDEX upload_recording ON upload (recording) WHERE recording IS NOT NULL;
CREATE INDEX upload_expiry ON upload (expires_at);
CREATE INDEX upload_place ON upload (place) WHERE recording IS NULL;
CREATE INDEX upload_key ON upload (key) WHERE recording IS NULL;

-- Readers who know of everything for an hour at the most, because somebody whom they named lets them.
CREATE TABLE glass (
    id uuid PRIMARY KEY,
    reader text NOT NULL,
    approver text NOT NULL CHECK (approver <> reader),
    lasts interval NOT NULL CHECK (lasts BETWEEN '1 minute' AND '60 minutes'),
    asked_at timestamptz NOT NULL DEFAULT archive_now(),
    granted_at timestamptz,
    until timestamptz CHECK (until <= granted_at + interval '60 minutes'),
    ended_at timestamptz,
    CHECK ((until IS NULL) = (granted_at IS NULL))
);
CREATE INDEX glass_broken ON glass (reader, until) WHERE until IS NOT NULL;

-- One row: the zone and the periods that are in force. Two people put others in their place.
CREATE TABLE policy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    periods jsonb NOT NULL
);

-- What a step takes with it is the schema's to do, and only who may call `may_erase` takes the last
-- ones (storage/roles.py): then who takes in needs no right to change anything but the state.
CREATE FUNCTION may_erase() RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION may_unmake() RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
REVOKE EXECUTE ON FUNCTION may_erase(), may_unmake() FROM PUBLIC;

CREATE FUNCTION take_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'stored' THEN
        NEW.lease_until := NULL;
        RETURN NEW;
    END IF;
    IF NEW.state = 'abandoned' THEN
        NEW.call_hash := NULL;
        NEW.digest := NULL;
        NEW.header := NULL;
        NEW.details := NULL;
        RETURN NEW;
    END IF;
    PERFORM may_erase();
    IF NEW.state = 'erased' THEN
        NEW.lease_until := NULL;
        NEW.attempt := NULL;
        NEW.digest := NULL;
        NEW.started_at := NULL;
        NEW.expires_at := NULL;
        NEW.rule := NULL;
        NEW.received_at := NULL;
        NEW.direction := NULL;
        NEW.duration := NULL;
        NEW.bytes := NULL;
        NEW.channels := NULL;
        NEW.sample_rate := NULL;
        NEW.codec := NULL;
        NEW.container := NULL;
        NEW.flaws := NULL;
        NEW.header := NULL;
        NEW.details := NULL;
        NEW.added := NULL;
        NEW.verified_at := NULL;
        NEW.damaged_at := NULL;
        NEW.redacted := NULL;
        NEW.redacted_at := NULL;
        NEW.redacted_bytes := NULL;
        NEW.redacted_header := NULL;
        NEW.redacted_details := NULL;
        NEW.redacting_until := NULL;
    END IF;
    RETURN NEW;
END $$;
-- After `recording_step`, by its name: a step that there is not is refused for what it is.
CREATE TRIGGER recording_taken BEFORE UPDATE OF state ON recording FOR EACH ROW
    EXECUTE FUNCTION take_step();

-- A row goes when its upload was given up. In any other state only `archive rebuild` removes it.
CREATE FUNCTION unmake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM may_unmake();
    RETURN OLD;
END $$;
CREATE TRIGGER recording_unmade BEFORE DELETE ON recording FOR EACH ROW
    WHEN (OLD.state <> 'abandoned') EXECUTE FUNCTION unmake();

-- What people decide is written down by their commands alone, which the owner runs: an entry lets a
-- recording be erased before its year, and no part of the service may put one there. Nor that one is
-- lost, which only a rebuild tells: the ledger's story is whole without its erasing; or that one is
-- there again. Sealed details come with the day of their key. A policy, and no trigger or CHECK: it is
-- looked at with the plan, where a trigger costs each entry half as much again, and a CHECK a sixth.
CREATE FUNCTION is_decision(act text) RETURNS boolean IMMUTABLE LANGUAGE sql
    RETURN act IN ('erasure.asked', 'erasure.granted', 'fuse.release_asked', 'fuse.released',
        'fuse.let_go', 'retention.asked', 'retention.changed', 'recording.lost', 'rebuilt');
-- What the jobs alone do, only who may erase tells of: on its word a day is closed, and copies go. That a
-- recording is stored, with its day, tells only who may make its row: nights and rebuilds look for it. And
-- no part writes more than an entry can be; what is not kept out so does not stop the ledger (storage/tree.py).
ALTER TABLE ledger_waiting ENABLE ROW LEVEL SECURITY;
CREATE POLICY no_decision ON ledger_waiting USING (true)
    WITH CHECK (NOT is_decision(act) AND (ends_on IS NULL) = (details IS NULL)
        AND jsonb_typeof(facts) = 'object' AND octet_length(facts::text) < 65536
        AND octet_length(actor) + octet_length(act) < 1024
        AND (act NOT IN ('erased', 'day.closed', 'night.done', 'days.frozen', 'export.erased', 'reconciled')
            OR has_function_privilege('may_erase()'::regprocedure, 'EXECUTE'))
        AND (act <> 'stored' OR recording IS NOT NULL AND facts->>'day' LIKE '____-__-__'
            AND facts ?& '{due,rule}' AND has_column_privilege('recording'::regclass, 'id', 'INSERT')));

-- The redacted copy that stands for a recording: its object's name, when it was made, how long its
-- audio is, and its head. One that has a name and no head is lost: nobody hears the original instead.
-- `redacting_until`: a copy is being stored until then, at the latest, and nothing is erased meanwhile.
ALTER TABLE recording
    ADD COLUMN redacted uuid,
    ADD COLUMN redacted_at timestamptz,
    ADD COLUMN redacted_bytes bigint,
    ADD COLUMN redacted_header bytea,
    ADD COLUMN redacted_details bytea,
    ADD COLUMN redacting_until timestamptz,
    ADD CHECK ((redacted IS NULL) = (redacted_at IS NULL)),
    ADD CHECK (num_nulls(redacted_bytes, redacted_header, redacted_details) IN (0, 3)),
    ADD CHECK (redacted IS NOT NULL OR redacted_header IS NULL),
    ADD CHECK (redacting_until <= expires_at),
    ADD CHECK (state <> 'erased' OR num_nonnulls(redacted, redacted_at, redacted_bytes,
        redacted_header, redacted_details, redacting_until) = 0);
CREATE INDEX recording_redacted ON recording (redacted_at)
    WHERE state = 'stored' AND redacted IS NOT NULL;

-- Objects of redacted copies that do not stand: one that is being stored (`swept` 0), and those that
-- are to be removed, for the first time (1) or once more a day later (2).
CREATE TABLE redaction_attempt (
    id uuid PRIMARY KEY,
    recording uuid NOT NULL,
    expires_on date NOT NULL,
    lease_until timestamptz NOT NULL,
    swept smallint NOT NULL DEFAULT 0 CHECK (swept BETWEEN 0 AND 2)
);
CREATE INDEX redaction_attempt_due ON redaction_attempt (lease_until);
CREATE INDEX redaction_attempt_recording ON redaction_attempt (recording);

-- Notices of recordings that lie elsewhere and are to be fetched. `mark` is an HMAC of the name by which
-- the sender knows the recording, so that a notice which comes again is known. Where it lies, and what
-- was said of the call, is sealed under the key of the expiry day, and only until it is done. Whoever
-- works on one holds it until `due_at`; `tries` tells whether it is still theirs. `failures` are those
-- tries that failed by what was to be fetched and where it lies, and not by the archive.
CREATE TABLE notice (
    id uuid PRIMARY KEY,
    hook text NOT NULL,
    mark bytea NOT NULL CHECK (length(mark) = 32),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'deleting', 'done', 'refused')),
    asked_at timestamptz NOT NULL DEFAULT archive_now(),
    due_at timestamptz NOT NULL DEFAULT archive_now(),
    expires_at timestamptz NOT NULL,
    expires_on date NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    failure text,
    recording uuid,
    details bytea,
    UNIQUE (hook, mark),
    CHECK ((details IS NOT NULL) = (state IN ('waiting', 'deleting')))
);
CREATE INDEX notice_due ON notice (due_at) WHERE state IN ('waiting', 'deleting');
CREATE INDEX notice_left ON notice (asked_at) WHERE state <> 'done';
CREATE INDEX notice_expiry ON notice (expires_at);

-- Landing buckets, where others write (storage/landing.py): when each was last looked at as a whole,
-- since when the oldest lies there that was left, and how many were refused.
CREATE TABLE landing (
    name text PRIMARY KEY,
    looked_at timestamptz NOT NULL DEFAULT archive_now(),
    oldest timestamptz,
    refused bigint NOT NULL DEFAULT 0
);

-- What lies in one of them and is left there for now. `object` is a keyed hash of its key, version
-- and ETag.
CREATE TABLE landing_left (
    landing text NOT NULL REFERENCES landing ON DELETE CASCADE,
    object bytea NOT NULL CHECK (length(object) = 32),
    fate text NOT NULL CHECK (fate IN ('taken', 'refused', 'waiting')),
    why text NOT NULL,
    again_at timestamptz NOT NULL,
    PRIMARY KEY (landing, object)
);

-- Exports: the audio of chosen recordings in one object, under a key of its own that the key of the day
-- wraps on which the export is over; `reason` is sealed under that day's key too. `attempt` names the
-- object before its first byte leaves. Once it is erased only its number stands here, for a week.
CREATE TABLE export (
    id uuid PRIMARY KEY,
    asker text NOT NULL,
    asked_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > asked_at),
    expires_on date NOT NULL,
    number integer NOT NULL CHECK (number BETWEEN 1 AND 100),
    recordings uuid[] CHECK (cardinality(recordings) = number),
    mass boolean NOT NULL,
    reason bytea,
    agreed_by text CHECK (agreed_by IS NULL OR mass AND agreed_by <> asker),
    epoch integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    attempt uuid,
    done integer NOT NULL DEFAULT 0,
    packed uuid[], -- the objects that it was made of, by their attempts: it is fetched while these are heard
    header bytea,
    bytes bigint,
    made_at timestamptz,
    ended text CHECK (ended IN ('expired', 'recording', 'damaged', 'changed', 'withdrawn')),
    erased_at timestamptz,
    CHECK (made_at IS NULL OR erased_at IS NOT NULL OR num_nulls(attempt, packed, header, bytes) = 0),
    CHECK (made_at IS NULL OR NOT mass OR agreed_by IS NOT NULL),
    CHECK (num_nulls(recordings, reason) = CASE WHEN erased_at IS NULL THEN 0 ELSE 2 END),
    CHECK (erased_at IS NULL OR num_nonnulls(attempt, packed, header, lease_until) = 0),
    CHECK (erased_at IS NULL OR ended IS NOT NULL)
);
CREATE INDEX export_asker ON export (asker, asked_at);
CREATE INDEX export_alive ON export (expires_at) WHERE erased_at IS NULL;
CREATE INDEX export_recordings ON export USING gin (recordings);
-- So that an object without a row is told from one that nobody knows; and for certificates.
CREATE INDEX ledger_export ON ledger ((facts->>'export')) WHERE act IN ('export.asked', 'export.erased');

-- What a local account may is for its commands to say, which the owner runs. What a provider grants is
-- written down by who signs people in, and by no door.
CREATE FUNCTION may_grant() RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
REVOKE EXECUTE ON FUNCTION may_grant() FROM PUBLIC;
CREATE FUNCTION grant_more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM may_grant();
    RETURN NEW;
END $$;
CREATE TRIGGER account_granted BEFORE UPDATE OF level, call_types, queues, teams ON account
    FOR EACH ROW WHEN (OLD.subject IS NULL) EXECUTE FUNCTION grant_more();

-- Who gives entries their places puts no decision into the ledger that did not wait for one: what the
-- same statement takes out of what waits is still seen. Nor does one that cannot be told (storage/tree.py)
-- stop the ledger. The index is for this, and so that what is due is found in a full queue as well.
CREATE INDEX ledger_waiting_asked ON ledger_waiting (recording)
    WHERE is_decision(act) OR act IN ('stored', 'rebuilt');
ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
CREATE POLICY decided ON ledger USING (true) WITH CHECK (NOT is_decision(act) OR EXISTS (
    SELECT FROM ledger_waiting w WHERE is_decision(w.act)
    AND (w.recording = ledger.recording OR (w.recording IS NULL AND ledger.recording IS NULL))
    AND (w.act, w.at, w.actor) = (ledger.act, ledger.at, ledger.actor)
    AND ledger.facts IN (w.facts, jsonb_build_object('untold',
        encode(sha256(convert_to(w.facts::text, 'UTF8')), 'hex')))));

-- So that the ledger is searched by day and by act, newest first, whatever its size.
CREATE INDEX ledger_at ON ledger (at, position);
CREATE INDEX ledger_act ON ledger (act, at, position);
