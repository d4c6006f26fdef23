#!/usr/bin/perl
# A client's end of a security context, for a test that speaks SMTP itself: `tickets.pl SERVICE@HOST`.
#
# Each line of standard input is an order, each line of output what came of it, octets in base64:
#   step TOKEN      the next token of ours; of an empty TOKEN, the first
#   wrap OCTETS     protected, not encrypted
#   unwrap OCTETS   taken out of their protection
use strict;
use warnings;

use GSSAPI;
use MIME::Base64;

$| = 1;
my $status = GSSAPI::Name->import(my $target, $ARGV[0], gss_nt_service_name);
$status or die "no name: $status";
my $context;

sub told {
    my ($status, $octets) = @_;
    return encode_base64($octets // '', '') if $status;
    my $why = join '; ', $status->generic_message(), $status->specific_message();
    $why =~ s/\s+/ /g;
    return "error $why";
}

while (my $line = <STDIN>) {
    my ($verb, $text) = $line =~ /^(\w+) ?(\S*)$/ or die "what is \"$line\"?";
    my $octets = decode_base64($text);
    my ($made, $state);
    if ($verb eq 'step') {
        $status = GSSAPI::Context::init(
            $context, GSS_C_NO_CREDENTIAL, $target, gss_mech_krb5, GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG, 0,
            GSS_C_NO_CHANNEL_BINDINGS, $octets, undef, $made, undef, undef);
        $status = GSSAPI::Status->new(0, 0) if $status->major == GSS_S_CONTINUE_NEEDED;
    }
    elsif ($verb eq 'wrap') {
        $status = $context->wrap(0, 0, $octets, $state, $made);
    }
    elsif ($verb eq 'unwrap') {
        $status = $context->unwrap($octets, $made, $state, my $quality);
    }
    else {
        die "what is $verb?";
    }
    print told($status, $made), "\n";
}
