-- What made version 5 of version 4. Frozen: stores like this exist.

ALTER TABLE chunk RENAME TO older_chunk;
CREATE TABLE chunk (
  message   INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  data      BLOB NOT NULL,
  UNIQUE (message, seq)
) STRICT;
CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.size > 262144 BEGIN
  DELETE FROM chunk WHERE message = old.id;
  DELETE FROM older_chunk WHERE message = old.id;
END;
ALTER TABLE incoming ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
CREATE INDEX incoming_dropped ON incoming (message) WHERE dropped;
