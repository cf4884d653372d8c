// smtp-server of the nodemailer family, with STARTTLS and a login.
const fs = require('fs');
const { SMTPServer } = require('smtp-server');
const env = process.env;
let number = 0;

new SMTPServer({
  key: fs.readFileSync(env.KEY),
  cert: fs.readFileSync(env.CERTIFICATE),
  authMethods: ['PLAIN', 'LOGIN', 'CRAM-MD5'],
  onAuth(auth, session, done) {
    const right = auth.username === 'app' && auth.password === 'a password';
    done(right ? null : new Error('wrong password'), { user: auth.username });
  },
  onRcptTo({ address }, session, done) {
    const error = address.startsWith('refused@') && new Error('no such mailbox here');
    done(error ? Object.assign(error, { responseCode: 550 }) : null);
  },
  onData(stream, session, done) {
    stream.pipe(fs.createWriteStream(`${env.MAIL}/message.${number++}`)).on('finish', () => done(null));
  },
}).listen(Number(env.PORT), env.HOST);
