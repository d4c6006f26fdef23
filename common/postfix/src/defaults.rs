//! What Postfix has where nothing is set, as far as it is needed here: `postconf -d` of release 3.7.

/// The built-in value of a parameter, names and all.
pub fn default_of(name: &str) -> Option<&'static str> {
    let found = DEFAULTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value)
}

const DEFAULTS: &[(&str, &str)] = &[
    ("alias_maps", "hash:/etc/aliases"),
    ("append_dot_mydomain", "no"),
    ("bounce_queue_lifetime", "5d"),
    ("config_directory", "/etc/postfix"),
    ("command_directory", "/usr/sbin"),
    ("daemon_directory", "/usr/lib/postfix/sbin"),
    ("data_directory", "/var/lib/postfix"),
    ("default_database_type", "hash"),
    ("default_destination_concurrency_limit", "20"),
    ("default_process_limit", "100"),
    ("default_transport", "smtp"),
    ("inet_interfaces", "all"),
    ("inet_protocols", "all"),
    ("local_transport", "local:$myhostname"),
    (
        "local_recipient_maps",
        "proxy:unix:passwd.byname $alias_maps",
    ),
    ("mail_name", "Postfix"),
    ("maximal_queue_lifetime", "5d"),
    (
        "mydestination",
        "$myhostname, localhost.$mydomain, localhost",
    ),
    ("mynetworks_style", "host"),
    ("myorigin", "$myhostname"),
    ("queue_directory", "/var/spool/postfix"),
    ("relay_domains", ""),
    ("relay_transport", "relay"),
    ("smtp_tls_security_level", ""),
    ("smtpd_banner", "$myhostname ESMTP $mail_name"),
    (
        "smtpd_relay_restrictions",
        "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    ),
    ("virtual_alias_domains", "$virtual_alias_maps"),
    ("virtual_mailbox_domains", "$virtual_mailbox_maps"),
    ("virtual_transport", "virtual"),
];
