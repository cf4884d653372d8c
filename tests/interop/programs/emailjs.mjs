// emailjs, with a message that it composes.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const { env } = process;
const found = createRequire(`${env.NODE_PATH}/`).resolve('emailjs');
const { SMTPClient } = await import(pathToFileURL(found));
const client = new SMTPClient({ host: env.HOST, port: Number(env.PORT), domain: 'client.test' });
try {
  await client.sendAsync({
    from: `${env.FROM_NAME} <${env.FROM}>`,
    to: `${env.TO}, ${env.ALSO}`,
    cc: env.COPY,
    bcc: env.BLIND,
    subject: env.SUBJECT,
    text: readFileSync(env.TEXT, 'utf8'),
    attachment: [{ path: env.ATTACHMENT, name: 'picture.bin', type: 'application/octet-stream' }],
  });
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
