<?php
// Symfony Mailer with a DSN, as its configuration has it: smtp://host:port or sendmail://default.
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Address;
use Symfony\Component\Mime\Email;

$dsn = $argv[1] === 'sendmail' ? 'sendmail://default' : 'smtp://' . getenv('HOST') . ':' . getenv('PORT');
$email = (new Email())
    ->from(new Address(getenv('FROM'), getenv('FROM_NAME')))
    ->to(getenv('TO'), getenv('ALSO'))
    ->cc(getenv('COPY'))
    ->bcc(getenv('BLIND'))
    ->subject(getenv('SUBJECT'))
    ->text(file_get_contents(getenv('TEXT')))
    ->attachFromPath(getenv('ATTACHMENT'), 'picture.bin');
try {
    (new Mailer(Transport::fromDsn($dsn)))->send($email);
} catch (Symfony\Component\Mailer\Exception\TransportExceptionInterface $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
