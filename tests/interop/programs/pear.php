<?php
// PEAR's Mail and Net_SMTP, which many older applications send with.
require 'Mail.php';

$word = fn (string $text): string => '=?utf-8?B?' . base64_encode($text) . '?=';
$headers = [
    'From' => $word(getenv('FROM_NAME')) . ' <' . getenv('FROM') . '>',
    'To' => getenv('TO') . ', ' . getenv('ALSO'),
    'Cc' => getenv('COPY'),
    'Subject' => $word(getenv('SUBJECT')),
    'MIME-Version' => '1.0',
    'Content-Type' => 'text/plain; charset=utf-8',
];
$to = [getenv('TO'), getenv('ALSO'), getenv('COPY'), getenv('BLIND')];
$mailer = Mail::factory('smtp', ['host' => getenv('HOST'), 'port' => (int) getenv('PORT'), 'auth' => false]);
$result = $mailer->send($to, $headers, file_get_contents(getenv('TEXT')));
if (PEAR::isError($result)) {
    fwrite(STDERR, $result->getMessage() . "\n");
    exit(1);
}
