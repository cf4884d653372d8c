// nodemailer, with a message that it composes.
const { createTransport } = require('nodemailer');
const env = process.env;

const login = env.LOGIN
  ? {
      auth: { user: env.LOGIN, pass: env.PASSWORD },
      requireTLS: env.TLS === 'starttls',
      tls: { ca: require('fs').readFileSync(env.CA) },
    }
  : {};

createTransport({ host: env.HOST, port: Number(env.PORT), secure: env.TLS === 'implicit', ...login })
  .sendMail({
    from: { name: env.FROM_NAME, address: env.FROM },
    to: [env.TO, env.ALSO],
    cc: env.COPY,
    bcc: env.BLIND,
    subject: env.SUBJECT,
    text: require('fs').readFileSync(env.TEXT, 'utf8'),
    attachments: [{ path: env.ATTACHMENT, filename: 'picture.bin' }],
  })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
