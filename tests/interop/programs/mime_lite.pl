# MIME::Lite, by SMTP.
use strict;
use warnings;
use Encode qw(decode_utf8 encode);
use MIME::Lite;

sub slurp { open my $file, '<:raw', shift or die $!; local $/; return <$file> }
my $message = MIME::Lite->new(
    From    => encode('MIME-Header', decode_utf8($ENV{FROM_NAME})) . " <$ENV{FROM}>",
    To      => "$ENV{TO}, $ENV{ALSO}",
    Cc      => $ENV{COPY},
    Bcc     => $ENV{BLIND},
    Subject => encode('MIME-Header', decode_utf8($ENV{SUBJECT})),
    Type    => 'multipart/mixed',
);
$message->attach(Type => 'text/plain; charset=utf-8', Encoding => '8bit', Data => slurp($ENV{TEXT}));
$message->attach(Type => 'application/octet-stream', Path => $ENV{ATTACHMENT}, Filename => 'picture.bin');
$message->send('smtp', $ENV{HOST}, Port => $ENV{PORT}, Hello => 'client.test');
