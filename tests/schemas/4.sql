-- What made version 4 of version 3. Frozen: stores like this exist.
CREATE TABLE owed (
  message   INTEGER NOT NULL,
  idx       INTEGER NOT NULL,         -- of the recipient; at most one debt for each
  due       INTEGER NOT NULL,         -- when it is reported at the latest
  action    INTEGER NOT NULL,         -- 0 failed, 1 delayed, 2 relayed
  status    TEXT NOT NULL,            -- enhanced status code
  replied   INTEGER NOT NULL,         -- the text is the reply of a server
  text      TEXT NOT NULL,            -- why
  mta       TEXT,                     -- the host that was asked
  tried     INTEGER NOT NULL,         -- when it was tried last
  until     INTEGER,                  -- for a delay: when it is given up
  notify    INTEGER NOT NULL,         -- as in recipient, from here on
  address   TEXT NOT NULL,
  orcpt     TEXT,
  PRIMARY KEY (message, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_due ON owed (due, message);
ALTER TABLE tally ADD COLUMN owed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX recipient_turn ON recipient (attempts > 0, bucket, due, lane)
  WHERE state IN (0, 4) AND lane >= '@' AND lane < 'A';
