-- What made version 2 of version 1. Frozen: stores like this exist.
ALTER TABLE recipient ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0; -- an attempt ended without the final reply
