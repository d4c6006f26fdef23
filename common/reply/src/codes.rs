use crate::{EnhancedStatusCode, ReplyCode};

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {$(
        $(#[$doc])*
        pub const $name: ReplyCode = ReplyCode($code);
    )*};
}

macro_rules! enhanced_codes {
    ($($(#[$doc:meta])* $name:ident = $class:literal $subject:literal $detail:literal;)*) => {$(
        $(#[$doc])*
        pub const $name: EnhancedStatusCode =
            EnhancedStatusCode { class: $class, subject: $subject, detail: $detail };
    )*};
}

reply_codes! {
    /// Answer to HELP.
    HELP_214 = 214;
    /// Greeting.
    SERVICE_READY_220 = 220;
    /// Answer to QUIT.
    CLOSING_221 = 221;
    /// AUTH succeeded (RFC 4954 §6).
    AUTH_SUCCEEDED_235 = 235;
    /// Done.
    OK_250 = 250;
    /// VRFY: cannot say, will try (RFC 5321 §3.5.3).
    CANNOT_VRFY_252 = 252;
    /// AUTH goes on (RFC 4954 §4).
    AUTH_CONTINUE_334 = 334;
    /// DATA: go on, end with a dot.
    START_MAIL_INPUT_354 = 354;
    /// This service leaves the conversation.
    SERVICE_NOT_AVAILABLE_421 = 421;
    /// Mailbox busy or refused for now.
    MAILBOX_BUSY_450 = 450;
    /// Our own fault, try again.
    LOCAL_ERROR_451 = 451;
    /// No room, or too many recipients.
    INSUFFICIENT_STORAGE_452 = 452;
    /// AUTH failed for now (RFC 4954 §6), or TLS not available (RFC 3207 §4).
    TEMPORARY_AUTH_FAILURE_454 = 454;
    /// Syntax error, or unknown command.
    SYNTAX_ERROR_500 = 500;
    /// Syntax error in the parameters.
    PARAMETER_SYNTAX_501 = 501;
    /// Known, but not here.
    NOT_IMPLEMENTED_502 = 502;
    /// Out of order.
    BAD_SEQUENCE_503 = 503;
    /// This parameter not here.
    PARAMETER_NOT_IMPLEMENTED_504 = 504;
    /// AUTH needed first, or TLS needed first (RFC 3207 §4, RFC 4954 §6).
    AUTH_REQUIRED_530 = 530;
    /// Credentials are wrong (RFC 4954 §6).
    AUTH_INVALID_535 = 535;
    /// This mechanism needs TLS (RFC 4954 §6).
    ENCRYPTION_REQUIRED_538 = 538;
    /// No such mailbox, or refused by policy.
    MAILBOX_UNAVAILABLE_550 = 550;
    /// Too large.
    EXCEEDED_STORAGE_552 = 552;
    /// The mailbox name is not allowed.
    MAILBOX_NAME_553 = 553;
    /// The transaction failed.
    TRANSACTION_FAILED_554 = 554;
    /// MAIL or RCPT parameters not recognised (RFC 5321 §4.1.1.11).
    UNKNOWN_PARAMETER_555 = 555;
}

enhanced_codes! {
    /// Success, nothing more to say.
    SUCCESS_2_0_0 = 2 0 0;
    /// The sender is fine.
    SENDER_OK_2_1_0 = 2 1 0;
    /// The recipient is fine.
    RECIPIENT_OK_2_1_5 = 2 1 5;
    /// Delivered or relayed.
    DELIVERED_2_6_0 = 2 6 0;
    /// Security matter went well (AUTH).
    SECURITY_OK_2_7_0 = 2 7 0;
    /// Undefined transient fault.
    TRANSIENT_4_0_0 = 4 0 0;
    /// The name servers did not say (transient form of 5.1.2).
    TEMPORARY_DOMAIN_4_1_2 = 4 1 2;
    /// The mailbox takes no mail, for now (transient form of 5.2.1).
    MAILBOX_DISABLED_4_2_1 = 4 2 1;
    /// The mailbox is over its quota, for now.
    MAILBOX_FULL_4_2_2 = 4 2 2;
    /// Undefined fault of our system.
    SYSTEM_4_3_0 = 4 3 0;
    /// Our disk is full.
    SYSTEM_FULL_4_3_1 = 4 3 1;
    /// The system takes no network messages now.
    SYSTEM_NOT_ACCEPTING_4_3_2 = 4 3 2;
    /// Our system is set up wrongly; a person is to mend it.
    MISCONFIGURED_4_3_5 = 4 3 5;
    /// The host does not answer.
    NO_ANSWER_4_4_1 = 4 4 1;
    /// The connection broke or timed out.
    BAD_CONNECTION_4_4_2 = 4 4 2;
    /// The name service does not answer.
    DIRECTORY_FAILURE_4_4_3 = 4 4 3;
    /// More mail than goes there (RFC 3463 §3.5: mail system congestion).
    CONGESTION_4_4_5 = 4 4 5;
    /// Delivery time expired (RFC 3463 §3.5).
    EXPIRED_4_4_7 = 4 4 7;
    /// Too many recipients in one transaction.
    TOO_MANY_RECIPIENTS_4_5_3 = 4 5 3;
    /// Refused by policy, for now.
    POLICY_4_7_0 = 4 7 0;
    /// Not allowed for now: a limit has no room.
    LIMIT_REACHED_4_7_1 = 4 7 1;
    /// Security features are wanted that the other side lacks.
    SECURITY_LACKING_4_7_4 = 4 7 4;
    /// Cryptography fails, such as a certificate that does not count.
    CRYPTOGRAPHY_4_7_5 = 4 7 5;
    /// Name or password is refused, where another answer may come (RFC 5248 §2.4).
    AUTH_INVALID_4_7_8 = 4 7 8;
    /// The mechanism needs encryption, for now not to be had (RFC 5248 §2.4).
    ENCRYPTION_NEEDED_4_7_11 = 4 7 11;
    /// Undefined permanent fault.
    PERMANENT_5_0_0 = 5 0 0;
    /// There is no such mailbox.
    BAD_MAILBOX_5_1_1 = 5 1 1;
    /// There is no such domain.
    BAD_DOMAIN_5_1_2 = 5 1 2;
    /// The address is malformed.
    BAD_ADDRESS_SYNTAX_5_1_3 = 5 1 3;
    /// The sender's address is malformed.
    BAD_SENDER_SYNTAX_5_1_7 = 5 1 7;
    /// The sender's domain does not exist.
    BAD_SENDER_DOMAIN_5_1_8 = 5 1 8;
    /// The domain takes no mail: null MX (RFC 7505).
    NULL_MX_5_1_10 = 5 1 10;
    /// The mailbox is disabled and takes no mail (RFC 3463 §3.3).
    MAILBOX_DISABLED_5_2_1 = 5 2 1;
    /// The mail is too large for this mailbox or host (RFC 3463 §3.3).
    TOO_LARGE_5_2_3 = 5 2 3;
    /// The system lacks a feature that was asked for the mail (RFC 3463 §3.4).
    NOT_CAPABLE_5_3_3 = 5 3 3;
    /// The mail is too large for this system (RFC 1870 §6.1).
    TOO_LARGE_5_3_4 = 5 3 4;
    /// Routing loop, or unable to route (RFC 3463 §3.5).
    UNROUTABLE_5_4_4 = 5 4 4;
    /// Routing loop detected.
    LOOP_5_4_6 = 5 4 6;
    /// Delivery time expired.
    EXPIRED_5_4_7 = 5 4 7;
    /// The command stands out of order, or is unknown.
    INVALID_COMMAND_5_5_1 = 5 5 1;
    /// Syntax error.
    SYNTAX_5_5_2 = 5 5 2;
    /// Too many recipients, for good.
    TOO_MANY_RECIPIENTS_5_5_3 = 5 5 3;
    /// A parameter is not valid.
    INVALID_PARAMETER_5_5_4 = 5 5 4;
    /// Line too long in AUTH (RFC 4954 §6).
    AUTH_LINE_TOO_LONG_5_5_6 = 5 5 6;
    /// Content is not acceptable, bare line ends among others.
    BAD_CONTENT_5_6_0 = 5 6 0;
    /// The next host lacks what the content needs (8BITMIME).
    CONVERSION_NEEDED_5_6_3 = 5 6 3;
    /// The next host lacks SMTPUTF8 (RFC 6531 §3.5).
    NEEDS_SMTPUTF8_5_6_7 = 5 6 7;
    /// Security matter: TLS or AUTH needed.
    SECURITY_5_7_0 = 5 7 0;
    /// Not allowed, relaying among others.
    NOT_AUTHORIZED_5_7_1 = 5 7 1;
    /// Credentials are wrong (RFC 4954 §6).
    AUTH_INVALID_5_7_8 = 5 7 8;
    /// The mechanism is too weak.
    WEAK_MECHANISM_5_7_9 = 5 7 9;
    /// Encryption needed for this mechanism (RFC 4954 §6).
    ENCRYPTION_NEEDED_5_7_11 = 5 7 11;
    /// RFC 8689 §5: the sender demands TLS, and it cannot be had as demanded.
    REQUIRETLS_NEEDED_5_7_30 = 5 7 30;
}
