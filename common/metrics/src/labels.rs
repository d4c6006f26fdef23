//! The labels, and the closed sets of their values. They are only added to: dashboards and alerts name them.

/// A label and what it can say.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it tells.
    pub meaning: &'static str,
    /// Every value with its meaning; none: the values are named in `meaning`.
    pub words: Option<&'static [(&'static str, &'static str)]>,
}

/// A value of one label.
pub trait Word: Copy + Send + Sync + 'static {
    /// All of them, in the order of [`Key::place`].
    const ALL: &'static [Self];
}

/// The values of some labels at once: what a [`crate::Table`] is looked up by.
pub trait Key: Copy + Send + Sync + 'static {
    /// Every combination, in the order of their places.
    fn all() -> Vec<Self>;
    /// Where it stands among them.
    fn place(self) -> usize;
    /// The values, in the order of the metric's labels.
    fn texts(self) -> Vec<&'static str>;
}

impl<A: Word + Key, B: Word + Key> Key for (A, B) {
    fn all() -> Vec<Self> {
        let pairs = A::ALL
            .iter()
            .flat_map(|&a| B::ALL.iter().map(move |&b| (a, b)));
        pairs.collect()
    }

    fn place(self) -> usize {
        self.0.place() * B::ALL.len() + self.1.place()
    }

    fn texts(self) -> Vec<&'static str> {
        [self.0.texts(), self.1.texts()].concat()
    }
}

impl<A: Word + Key, B: Word + Key, C: Word + Key> Key for (A, B, C) {
    fn all() -> Vec<Self> {
        let pairs = <(A, B)>::all().into_iter();
        let triples = pairs.flat_map(|(a, b)| C::ALL.iter().map(move |&c| (a, b, c)));
        triples.collect()
    }

    fn place(self) -> usize {
        (self.0, self.1).place() * C::ALL.len() + self.2.place()
    }

    fn texts(self) -> Vec<&'static str> {
        [(self.0, self.1).texts(), self.2.texts()].concat()
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $label:ident $kind:ident $name:literal $meaning:literal { $($variant:ident $text:literal $what:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $kind {
            $(#[doc = $what] $variant,)+
        }

        impl Word for $kind {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        impl $kind {
            /// As the label says it.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl Key for $kind {
            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn place(self) -> usize {
                self as usize
            }

            fn texts(self) -> Vec<&'static str> {
                vec![self.text()]
            }
        }

        #[doc = $meaning]
        pub static $label: Label = Label {
            name: $name,
            meaning: $meaning,
            words: Some(&[$(($text, $what),)+]),
        };
    };
}

/// The listener's name in the configuration.
pub static LISTENER: Label = Label {
    name: "listener",
    meaning: "The listener's name: `submission`, `submissions`, or as `mta.inbound.listeners` and `mda.lmtp.listeners` call it.",
    words: None,
};

/// A node of the queue.
pub static NODE: Label = Label {
    name: "node",
    meaning: "The queue's node: its host in `common.queue` or the path of its socket, with its port where two are on one host.",
    words: None,
};

/// The check's name in `/readyz`.
pub static CHECK: Label = Label {
    name: "check",
    meaning: "The check's name, as `/readyz` and `postroad health` tell it.",
    words: None,
};

/// The version of the program.
pub static VERSION: Label = Label {
    name: "version",
    meaning: "The version of the program.",
    words: None,
};

words! {
    /// What a certificate of ours is for.
    CERTIFICATE Certificate "certificate" "What the certificate is for; of several the one that runs out first." {
        Listeners "listeners" "Shown to mail clients and other mail hosts.",
        Agents "agents" "Shown to other agents over TCP.",
    }
}

words! {
    /// Why a connection was refused.
    RULE Rule "rule" "The limit that was reached." {
        MaxConnections "max_connections" "Of all connections of the listener.",
        MaxConnectionsPerIp "max_connections_per_ip" "Of those from one address or network.",
    }
}

words! {
    /// Why a conversation was cut.
    CUT Cut "limit" "The limit that a conversation reached." {
        Mails "mails" "Of mails on one connection.",
        Commands "commands" "Of commands on one connection.",
        Errors "errors" "Of mistakes.",
        AuthFailures "auth_failures" "Of failed log-ins.",
        RefusedRecipients "refused_recipients" "Of recipients that were refused.",
        IdleCommands "idle_commands" "Of commands without a mail.",
        Time "time" "Of time: the client was waited for long enough.",
        Flood "flood" "Of what is read behind content that was refused.",
    }
}

words! {
    /// The protocol version of an encrypted connection.
    TLS_VERSION TlsVersion "version" "The version of TLS." {
        Tls12 "TLS1.2" "RFC 5246.",
        Tls13 "TLS1.3" "RFC 8446.",
    }
}

words! {
    /// How a conversation with another host was encrypted.
    TLS Tls "tls" "How the conversation was encrypted." {
        None "none" "In plain text, or there was none.",
        Tls12 "TLS1.2" "RFC 5246.",
        Tls13 "TLS1.3" "RFC 8446.",
    }
}

words! {
    /// How a log-in ended.
    LOGIN Login "result" "How it ended." {
        Succeeded "succeeded" "The client is the account.",
        Failed "failed" "Name or password is wrong, or the account is disabled.",
        Postponed "postponed" "It could not be told now.",
    }
}

words! {
    /// What a look for the keys of an issuer of tokens came to.
    KEYS Looked "result" "What it came to." {
        Fetched "fetched" "They were read.",
        Failed "failed" "They could not be read.",
    }
}

words! {
    /// How it was told whether a password is right.
    CHECKED Checked "by" "How it was told whether it is right." {
        Hashed "hashed" "It was hashed with argon2id, for an account or for nobody.",
        Remembered "remembered" "It was right a moment ago.",
        App "app" "It looks like an app password, which is quick.",
    }
}

words! {
    /// Where an answer about an account came from.
    ANSWER Answer "from" "Where the answer came from." {
        File "file" "The directory file of this host.",
        Asked "asked" "The queue, which was asked.",
        Remembered "remembered" "The queue, which was asked before.",
        Stale "stale" "The queue, which was asked too long ago and does not answer now.",
        None "none" "Nowhere: the queue did not answer, and nothing was remembered.",
    }
}

words! {
    /// What was refused.
    STAGE Stage "stage" "What was refused." {
        Client "client" "The client, as it connected.",
        Sender "sender" "The sender (MAIL).",
        Recipient "recipient" "One recipient (RCPT).",
        Mail "mail" "The mail, before or after its content came.",
    }
}

words! {
    /// For how long something was refused.
    SEVERITY Severity "severity" "For how long." {
        Transient "transient" "4yz: it may come again.",
        Permanent "permanent" "5yz: for good.",
    }
}

words! {
    /// Why: the subject of the enhanced status code (RFC 3463 §4).
    REASON Reason "reason" "Why: the subject of the enhanced status code (RFC 3463)." {
        Other "other" "x.0: anything else.",
        Address "address" "x.1: an address.",
        Mailbox "mailbox" "x.2: a mailbox, or a quota.",
        System "system" "x.3: this system, its queue or its disk.",
        Network "network" "x.4: network and routing, loops too.",
        Protocol "protocol" "x.5: the conversation.",
        Content "content" "x.6: the content.",
        Policy "policy" "x.7: what is not allowed.",
    }
}

words! {
    /// How a recipient's mail goes on.
    ROUTE Route "route" "The route class." {
        Local "local" "Into a mailbox of ours.",
        Relay "relay" "To the mail hosts of its domain, or the host of a route, by SMTP.",
        Lmtp "lmtp" "To the host of a route, by LMTP.",
    }
}

words! {
    /// What became of a recipient.
    OUTCOME Outcome "outcome" "What became of a recipient." {
        Delivered "delivered" "Filed in a mailbox of ours.",
        Relayed "relayed" "Taken by another system.",
        Delayed "delayed" "Not now; it is tried again.",
        Failed "failed" "Never: it bounces.",
        Expanded "expanded" "Replaced by other recipients.",
    }
}

words! {
    /// How a recipient of the queue came to its end, or to its next try.
    SETTLED Settled "outcome" "What became of a recipient." {
        Delivered "delivered" "Filed in a mailbox of ours.",
        Relayed "relayed" "Taken by another system.",
        Delayed "delayed" "Not now; it is tried again.",
        Bounced "bounced" "Never: its time was over, or it was refused for good; the sender is told.",
        Expanded "expanded" "Replaced by other recipients.",
    }
}

words! {
    /// Why a recipient did not get a mail, or not yet.
    CAUSE Cause "cause" "Why." {
        MailboxUnknown "mailbox_unknown" "There is no such mailbox.",
        MailboxDisabled "mailbox_disabled" "The mailbox takes no mail.",
        MailboxFull "mailbox_full" "The mailbox has no room.",
        DomainUnknown "domain_unknown" "The domain does not exist, or has no mail.",
        SenderRefused "sender_refused" "The sender's address is not believed, or may not send.",
        Unauthenticated "unauthenticated" "SPF, DKIM, DMARC or a host's name are not as wanted.",
        Spam "spam" "It looks like spam to the host.",
        Content "content" "The content is of a kind that the host does not take.",
        Reputation "reputation" "Our address or domain is on a list, or has no good name.",
        RateLimited "rate_limited" "Too much in too short a time.",
        Greylisted "greylisted" "A first attempt is put off on purpose.",
        Policy "policy" "A rule of the host's that says no more.",
        TooLarge "too_large" "The mail is too large.",
        LoginRequired "login_required" "The host wants a log-in, or ours was not good.",
        RelayDenied "relay_denied" "The host does not take mail for that domain from us.",
        Connection "connection" "No connection, or it broke.",
        Dns "dns" "The name service did not answer.",
        Tls "tls" "No TLS, or not good enough.",
        Protocol "protocol" "The two do not understand one another.",
        System "system" "The host has trouble of its own.",
        Loop "loop" "The mail went round in a circle.",
        Expired "expired" "Its time was over before anything was tried.",
        Suppressed "suppressed" "Mail to that recipient failed for good before.",
        Other "other" "Something else.",
    }
}

words! {
    /// Whether a connection to another host came about.
    CONNECT Connect "result" "What became of it." {
        Connected "connected" "The host took the connection.",
        Failed "failed" "It did not, or could not be reached.",
        Overtaken "overtaken" "It was given up, since another address of the host was sooner connected to.",
    }
}

words! {
    /// How a conversation with another host was protected.
    PROTECTION Protection "level" "How it was protected." {
        Plain "plain" "Not at all.",
        Encrypted "encrypted" "By TLS, whoever it was.",
        Verified "verified" "By TLS, with a certificate of a known authority for the right name.",
        Dane "dane" "By TLS, with a certificate that the DNS vouches for.",
    }
}

words! {
    /// Why a host cannot be used as it is configured.
    UNUSABLE Unusable "reason" "Why." {
        LoginRefused "login_refused" "It refuses our name or password.",
        LoginPostponed "login_postponed" "It cannot look at our password now.",
        NoMechanism "no_mechanism" "It offers no log-in of a kind that we know.",
        PasswordUnprotected "password_unprotected" "The password would go in plain text.",
        LoginMissing "login_missing" "It wants a log-in, and none is configured.",
        NoTls "no_tls" "It offers no TLS, which is required, or refuses it.",
        Handshake "handshake" "TLS is required and does not come about.",
        Certificate "certificate" "Its certificate does not count, or is for another name.",
    }
}

words! {
    /// How a site stands.
    SITE Site "state" "How the site stands." {
        New "new" "Nothing was sent there yet.",
        Open "open" "It takes what comes.",
        Limited "limited" "It takes mail at the rate that was learned.",
        BackingOff "backing-off" "It refused, and is asked again soon.",
        Paused "paused" "It is left alone for a time.",
        Down "down" "Nobody answers there.",
    }
}

words! {
    /// Where a job stands.
    STATE State "state" "Where the job stands." {
        Due "due" "Its time has come, and it waits for a worker.",
        Leased "leased" "A worker has it, or had it before a restart.",
        Delayed "delayed" "Its next attempt is later, or its sender is to be told.",
        Held "held" "Somebody holds it.",
    }
}

words! {
    /// Where a mail of the queue came from.
    SOURCE Source "source" "Where it came from." {
        Submitted "submitted" "An agent handed it over, or an operator sent it again.",
        Report "report" "The queue made it: a report to a sender.",
        Imported "imported" "An operator imported it.",
    }
}

words! {
    /// Why the queue refused a mail.
    REFUSED Refused "reason" "Why." {
        Full "full" "No room: the disk reserve, or too many mails or too much content under way.",
        Quota "quota" "A quota of a tenant, an account or a domain.",
        Size "size" "It is larger than the queue or a quota allows at all.",
        NotAllowed "not_allowed" "The agent may not submit it.",
        Unavailable "unavailable" "The queue was stopping, or could not tell.",
        Other "other" "What came made no sense, or its id is taken.",
    }
}

words! {
    /// What a report says.
    REPORT Report "kind" "What it says." {
        Failed "failed" "The mail could not be delivered.",
        Delayed "delayed" "It takes longer.",
        Delivered "delivered" "It was delivered; the sender had asked.",
    }
}

words! {
    /// What the mail store synced.
    SYNCED Synced "of" "What was synced." {
        File "file" "A mail by itself.",
        Folder "folder" "The names in a folder, for all who waited for it.",
        FileSystem "file_system" "All of the file system, for a group of deliveries that waited at the same time.",
        Ledger "ledger" "The list of what is decided, for all entries that waited.",
    }
}

words! {
    /// What a commit wrote.
    OFFER Offer "kind" "What was committed." {
        Mail "mail" "A new mail.",
        Settlement "settlement" "The result of a lease.",
        Other "other" "What operators, reports and upkeep change.",
    }
}

words! {
    /// What agents count together.
    COUNTED Counted "kind" "What is counted." {
        AuthFailed "auth_failed" "Failed log-ins, by the client's network.",
        Guessed "guessed" "Failed log-ins, by the name that was tried.",
        Home "home" "Log-ins, by account and the client's network.",
        Sent "sent" "Recipients of mail, by the account that sent it.",
        SentMails "sent_mails" "Mails, by the account that sent them.",
        SentBytes "sent_bytes" "Octets of mail, by the account that sent it.",
        Client "client" "What a client at port 25 should not have done, by its network.",
    }
}

impl Reason {
    /// Of the second number of an enhanced status code.
    pub const fn of_subject(subject: u16) -> Self {
        match subject {
            1 => Self::Address,
            2 => Self::Mailbox,
            3 => Self::System,
            4 => Self::Network,
            5 => Self::Protocol,
            6 => Self::Content,
            7 => Self::Policy,
            _ => Self::Other,
        }
    }
}
