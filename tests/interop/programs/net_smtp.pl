# Perl's Net::SMTP, looking at what each call returns.
use strict;
use warnings;
use Net::SMTP;

my $smtp = Net::SMTP->new($ENV{HOST}, Port => $ENV{PORT}, Hello => 'client.test', Timeout => 20)
    or die "cannot connect: $@\n";
$smtp->mail($ENV{FROM}) or die 'MAIL: ' . $smtp->message;
$smtp->to(@ENV{qw(TO ALSO COPY BLIND)}) or die 'RCPT: ' . $smtp->message;
open my $file, '<', $ENV{MESSAGE} or die $!;
$smtp->data() or die 'DATA: ' . $smtp->message;
$smtp->datasend($_) while <$file>;
$smtp->dataend() or die 'the message: ' . $smtp->message;
$smtp->quit or die 'QUIT: ' . $smtp->message;
