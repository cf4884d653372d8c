<?php
// PHP's mail(), with sendmail_path as php.ini has it by default. The subject is encoded by the script, as mail() wants it.
function word(string $text): string
{
    return '=?utf-8?B?' . base64_encode($text) . '?=';
}

$headers = [
    'From' => word(getenv('FROM_NAME')) . ' <' . getenv('FROM') . '>',
    'Cc' => getenv('COPY'),
    'Bcc' => getenv('BLIND'),
    'MIME-Version' => '1.0',
    'Content-Type' => 'text/plain; charset=utf-8',
];
$to = getenv('TO') . ', ' . getenv('ALSO');
exit(mail($to, word(getenv('SUBJECT')), file_get_contents(getenv('TEXT')), $headers) ? 0 : 1);
