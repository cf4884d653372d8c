-- What made version 3 of version 2. Frozen: stores like this exist.
DROP INDEX recipient_lane;
CREATE INDEX recipient_waiting ON recipient (lane, message, idx) WHERE state IN (0, 4);
CREATE INDEX recipient_aside ON recipient (lane, message, idx) WHERE state IN (2, 3);
