// A plugin of Haraka: refuses one recipient, and keeps what comes for the others.
const fs = require('fs');

exports.hook_rcpt = function (next, connection, [recipient]) {
  if (recipient.user === 'refused') return next(DENY, 'no such mailbox here');
  next(OK);
};

exports.hook_queue = function (next, connection) {
  const { transaction } = connection;
  const file = fs.createWriteStream(`${process.env.MAIL}/${transaction.uuid}`);
  file.on('close', () => next(OK));
  transaction.message_stream.pipe(file, { dot_stuffing: false });
};
