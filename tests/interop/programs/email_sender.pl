# Email::Sender with Email::MIME, over SMTP or (first word) by sendmail.
use strict;
use warnings;
use Email::MIME;
use Email::Sender::Simple qw(sendmail);
use Email::Sender::Transport::Sendmail;
use Email::Sender::Transport::SMTP;
use Encode qw(decode_utf8);

my $transport = $ARGV[0] eq 'sendmail'
    ? Email::Sender::Transport::Sendmail->new
    : Email::Sender::Transport::SMTP->new({ host => $ENV{HOST}, port => $ENV{PORT}, helo => 'client.test' });
sub slurp { open my $file, '<:raw', shift or die $!; local $/; return <$file> }
my $message = Email::MIME->create(
    header_str => [
        From    => decode_utf8($ENV{FROM_NAME}) . " <$ENV{FROM}>",
        To      => "$ENV{TO}, $ENV{ALSO}",
        Cc      => $ENV{COPY},
        Subject => decode_utf8($ENV{SUBJECT}),
    ],
    parts => [
        Email::MIME->create(
            attributes => { content_type => 'text/plain', charset => 'utf-8', encoding => 'quoted-printable' },
            body_str   => decode_utf8(slurp($ENV{TEXT})),
        ),
        Email::MIME->create(
            attributes => {
                content_type => 'application/octet-stream', encoding => 'base64',
                disposition  => 'attachment', filename => 'picture.bin',
            },
            body => slurp($ENV{ATTACHMENT}),
        ),
    ],
);
sendmail($message, { transport => $transport, from => $ENV{FROM}, to => [ @ENV{qw(TO ALSO COPY BLIND)} ] });
