-- The schema of version 1, as its programs left it. Frozen: stores like this exist.
CREATE TABLE message (
  id        INTEGER PRIMARY KEY,      -- queue id as a number
  received  INTEGER NOT NULL,         -- all times: milliseconds since 1970
  sender    TEXT NOT NULL,            -- reverse-path, '' for <>
  size      INTEGER NOT NULL,         -- bytes of the body
  priority  INTEGER NOT NULL,
  eightbit  INTEGER NOT NULL,         -- BODY=8BITMIME
  smtputf8  INTEGER NOT NULL,
  ret       INTEGER,                  -- RET=: 0 HDRS, 1 FULL
  envid     TEXT,
  origin    INTEGER NOT NULL,         -- 0 client, 1 DSN, 2 local
  ip        TEXT,                     -- of the client
  helo      TEXT,                     -- of the client
  traits    INTEGER NOT NULL,         -- what the body contains, bits
  head      BLOB NOT NULL             -- chunk 0 of the body; last, so that the rest is read without it
) STRICT;

CREATE TABLE recipient (
  message   INTEGER NOT NULL,
  idx       INTEGER NOT NULL,         -- position in the envelope
  state     INTEGER NOT NULL,         -- 0 queued, 1 leased, 2 held, 3 failed, 4 uncertain
  lane      TEXT NOT NULL,
  bucket    INTEGER NOT NULL,         -- (9 - priority) * 64 + slot of the sender
  due       INTEGER NOT NULL,         -- for a dead letter: when it failed
  attempts  INTEGER NOT NULL,
  warned    INTEGER NOT NULL,         -- a delay DSN was sent
  notify    INTEGER NOT NULL,         -- NOTIFY=, bits
  address   TEXT NOT NULL,            -- forward-path
  orcpt     TEXT,                     -- ORCPT=, decoded: type;address
  reason    TEXT NOT NULL,            -- last reply or error
  PRIMARY KEY (message, idx)
) STRICT, WITHOUT ROWID;

-- Partial, so that a message that is delivered at once (stored as leased) touches none but the
-- small index of leases.
CREATE INDEX recipient_ready ON recipient (lane, bucket, due, message, idx) WHERE state IN (0, 4);
CREATE INDEX recipient_leased ON recipient (message, idx) WHERE state = 1;
CREATE INDEX recipient_failed ON recipient (due, message, idx) WHERE state = 3;
CREATE INDEX recipient_lane ON recipient (lane, message, idx) WHERE state <> 1;

-- Chunks 1.. of bodies that are longer than one chunk.
CREATE TABLE chunk (
  message   INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  data      BLOB NOT NULL,
  PRIMARY KEY (message, seq)
) STRICT, WITHOUT ROWID;

-- Messages that have chunks and are not accepted yet: what start-up has to drop.
CREATE TABLE incoming (
  message   INTEGER PRIMARY KEY
) STRICT;

-- Small named values of other parts: quota reservations, feedback state.
CREATE TABLE memo (
  name      TEXT PRIMARY KEY,
  value     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: what would take a scan to count, and the id below which no new one may be.
CREATE TABLE tally (
  messages  INTEGER NOT NULL,
  queued    INTEGER NOT NULL,
  leased    INTEGER NOT NULL,
  held      INTEGER NOT NULL,
  failed    INTEGER NOT NULL,
  uncertain INTEGER NOT NULL,
  last_id   INTEGER NOT NULL
) STRICT;
INSERT INTO tally VALUES (0, 0, 0, 0, 0, 0, 0);

-- For people with the sqlite3 command.
CREATE VIEW queue AS
WITH abc(a) AS (VALUES ('0123456789abcdefghjkmnpqrstvwxyz'))
SELECT substr(a, 1 + (r.message >> 60 & 31), 1) || substr(a, 1 + (r.message >> 55 & 31), 1)
    || substr(a, 1 + (r.message >> 50 & 31), 1) || substr(a, 1 + (r.message >> 45 & 31), 1)
    || substr(a, 1 + (r.message >> 40 & 31), 1) || substr(a, 1 + (r.message >> 35 & 31), 1)
    || substr(a, 1 + (r.message >> 30 & 31), 1) || substr(a, 1 + (r.message >> 25 & 31), 1)
    || substr(a, 1 + (r.message >> 20 & 31), 1) || substr(a, 1 + (r.message >> 15 & 31), 1)
    || substr(a, 1 + (r.message >> 10 & 31), 1) || substr(a, 1 + (r.message >> 5 & 31), 1)
    || substr(a, 1 + (r.message & 31), 1) AS id,
  r.idx AS idx, m.sender AS sender, r.address AS recipient, r.lane AS provider,
  CASE r.state WHEN 0 THEN 'queued' WHEN 1 THEN 'leased' WHEN 2 THEN 'held' WHEN 3 THEN 'failed'
    ELSE 'uncertain' END AS state,
  m.priority AS priority, r.attempts AS attempts,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.due / 1000.0, 'unixepoch') AS due, m.size AS size,
  strftime('%Y-%m-%dT%H:%M:%fZ', m.received / 1000.0, 'unixepoch') AS received, r.reason AS reason
FROM abc, recipient r JOIN message m ON m.id = r.message;
