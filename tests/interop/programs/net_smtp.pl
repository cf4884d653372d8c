# Perl's Net::SMTP, looking at what each call returns.
use strict;
use warnings;
use Net::SMTP;

my $smtp = Net::SMTP->new($ENV{HOST}, Port => $ENV{PORT}, Hello => 'client.test', Timeout => 20,
    SSL => ($ENV{TLS} // '') eq 'implicit', SSL_ca_file => $ENV{CA})
    or die "cannot connect: $@\n";
if ($ENV{LOGIN}) {
    $ENV{TLS} ne 'starttls' or $smtp->starttls(SSL_ca_file => $ENV{CA}) or die "STARTTLS: $@";
    $smtp->auth($ENV{LOGIN}, $ENV{PASSWORD}) or die 'AUTH: ' . $smtp->message;
}
$smtp->mail($ENV{FROM}) or die 'MAIL: ' . $smtp->message;
$smtp->to(@ENV{qw(TO ALSO COPY BLIND)}) or die 'RCPT: ' . $smtp->message;
open my $file, '<', $ENV{MESSAGE} or die $!;
$smtp->data() or die 'DATA: ' . $smtp->message;
$smtp->datasend($_) while <$file>;
$smtp->dataend() or die 'the message: ' . $smtp->message;
$smtp->quit or die 'QUIT: ' . $smtp->message;
