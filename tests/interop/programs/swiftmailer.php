<?php
// Swift Mailer, which older applications still have, over SMTP.
require '/usr/share/php/Egulias/EmailValidator/autoload.php';
require '/usr/share/php/Swift/swift_required.php';

$transport = new Swift_SmtpTransport(getenv('HOST'), (int) getenv('PORT'));
$message = (new Swift_Message(getenv('SUBJECT')))
    ->setFrom([getenv('FROM') => getenv('FROM_NAME')])
    ->setTo([getenv('TO'), getenv('ALSO')])
    ->setCc([getenv('COPY')])
    ->setBcc([getenv('BLIND')])
    ->setBody(file_get_contents(getenv('TEXT')))
    ->attach(Swift_Attachment::fromPath(getenv('ATTACHMENT'))->setFilename('picture.bin'));
try {
    exit((new Swift_Mailer($transport))->send($message) > 0 ? 0 : 1);
} catch (Swift_TransportException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(2);
}
