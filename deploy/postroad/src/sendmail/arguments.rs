//! The command line of sendmail(8), as programs have written it since 1983.
//!
//! Flags may stand together (`-ti`), values beside their flag or behind it (`-fa@b`, `-f a@b`). What concerns delivery by another
//! program, queues or configuration files of its own is read and passed over.

use std::iter::Peekable;
use std::time::Duration;

use postroad_daemon::Interval;
use postroad_envelope::{Notify, Ret, Timestamp};

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    /// Read a mail and send it.
    Send(Order),
    /// Speak SMTP on standard input and output (`-bs`).
    Smtp(Order),
    /// Show the queue (`-bp`).
    ShowQueue,
    /// Something that needs no doing here: rebuild aliases (`-bi`), run the queue (`-q`).
    Nothing,
}

/// How a mail is sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `-f`, `-r`: the sender; `<>` or empty is the null path.
    pub sender: Option<String>,
    /// `-F`: the name in a From field that is added.
    pub full_name: Option<String>,
    /// Recipients behind the flags.
    pub recipients: Vec<String>,
    /// `-t`: and those of To, Cc and Bcc.
    pub from_header: bool,
    /// Without `-i` a line with a dot alone ends the mail.
    pub ignore_dots: bool,
    /// `-N`.
    pub notify: Option<Notify>,
    /// `-R`.
    pub ret: Option<Ret>,
    /// `-V`.
    pub envid: Option<String>,
    /// `--hold-for`, `--hold-until`: nothing of it is tried before.
    pub hold: Option<Hold>,
    /// `-v`: says under which id it was taken.
    pub is_verbose: bool,
}

/// How long a mail rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// From now on.
    For(Duration),
    /// By the clock.
    Until(Timestamp),
}

/// Flags with a value.
const VALUES: &str = "ABCDFLNOQRVXbdefhopr";
/// Flags without.
const FLAGS: &str = "GIUcimnstv";

/// Reads the arguments behind the name of the program.
///
/// # Errors
///
/// What cannot be understood.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Job, String> {
    let mut arguments = arguments.into_iter().peekable();
    let mut order = Order::default();
    let mut mode = 'm';
    let mut runs_queue = false;
    while let Some(argument) = arguments.next() {
        let Some(flags) = argument.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            order.recipients.push(argument);
            continue;
        };
        if flags == "-" {
            order.recipients.extend(arguments);
            break;
        }
        if let Some(long) = flags.strip_prefix('-') {
            order.hold = Some(hold(long, &mut arguments)?);
            continue;
        }
        let mut rest = flags;
        while let Some(flag) = rest.chars().next() {
            rest = rest.get(flag.len_utf8()..).unwrap_or_default();
            if flag == 'q' {
                // Its value, if any, stands beside it.
                (runs_queue, rest) = (true, "");
            } else if FLAGS.contains(flag) {
                order.flag(flag);
            } else if VALUES.contains(flag) {
                let value = value(flag, rest, &mut arguments)?;
                match flag {
                    'b' => mode = mode_of(&value)?,
                    _ => order.value(flag, &value)?,
                }
                rest = "";
            } else {
                return Err(format!("there is no flag -{flag}"));
            }
        }
    }
    Ok(match mode {
        's' => Job::Smtp(order),
        'p' => Job::ShowQueue,
        'i' => Job::Nothing,
        _ if runs_queue => Job::Nothing,
        _ => Job::Send(order),
    })
}

fn value(
    flag: char,
    beside: &str,
    arguments: &mut Peekable<impl Iterator<Item = String>>,
) -> Result<String, String> {
    match beside {
        "" => arguments
            .next()
            .ok_or_else(|| format!("-{flag} needs a value")),
        beside => Ok(beside.to_owned()),
    }
}

/// Flags that no other sendmail has.
fn hold(long: &str, arguments: &mut impl Iterator<Item = String>) -> Result<Hold, String> {
    let (name, beside) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let value = || {
        let value = beside.or_else(|| arguments.next());
        value.ok_or_else(|| format!("--{name} needs a value"))
    };
    match name {
        "hold-for" => {
            let value = value()?;
            let time: Result<Interval, _> = value.parse();
            let time = time.map_err(|error| format!("--hold-for {value}: write {error}"))?;
            Ok(Hold::For(time.as_duration()))
        }
        "hold-until" => {
            let value = value()?;
            let at = value.parse().map_err(|_| {
                format!("--hold-until {value}: write a time such as 2026-12-24T18:00:00Z")
            })?;
            Ok(Hold::Until(at))
        }
        _ => Err(format!("there is no flag --{name}")),
    }
}

fn mode_of(value: &str) -> Result<char, String> {
    match value {
        "m" => Ok('m'),
        "s" => Ok('s'),
        "p" => Ok('p'),
        "i" => Ok('i'),
        "d" | "D" => {
            Err("-bd: mail is taken from others by postroad-mta and postroad-msa".to_owned())
        }
        other => Err(format!(
            "-b{other} is not done here; there are -bm, -bs, -bp and -bi"
        )),
    }
}

impl Order {
    fn flag(&mut self, flag: char) {
        match flag {
            't' => self.from_header = true,
            'i' => self.ignore_dots = true,
            'v' => self.is_verbose = true,
            _ => {}
        }
    }

    fn value(&mut self, flag: char, value: &str) -> Result<(), String> {
        match flag {
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'N' => self.notify = Some(notify(value)?),
            'R' => self.ret = Some(ret(value)?),
            'V' => self.envid = Some(value.to_owned()),
            'o' if value == "i" => self.ignore_dots = true,
            'O' if value.eq_ignore_ascii_case("ignoredots=true") => self.ignore_dots = true,
            _ => {}
        }
        Ok(())
    }
}

/// RFC 3461 §4.1, as a list with commas.
fn notify(value: &str) -> Result<Notify, String> {
    if value.eq_ignore_ascii_case("never") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => {
                return Err(format!(
                    "-N {value}: write never, or some of success,failure,delay"
                ));
            }
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

fn ret(value: &str) -> Result<Ret, String> {
    match value.to_ascii_lowercase().as_str() {
        "full" => Ok(Ret::Full),
        "hdrs" => Ok(Ret::Headers),
        _ => Err(format!("-R {value}: write full or hdrs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Job, String> {
        parse(
            line.split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned),
        )
    }

    fn order(line: &str) -> Order {
        match read(line) {
            Ok(Job::Send(order)) => order,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_stand_together_and_values_beside_or_behind() {
        for line in [
            "-t -i -f a@b.example",
            "-ti -fa@b.example",
            "-oi -t -r a@b.example",
            "-tif a@b.example",
        ] {
            let order = order(line);
            assert!(order.from_header && order.ignore_dots, "{line}");
            assert_eq!(order.sender.as_deref(), Some("a@b.example"), "{line}");
        }
        let bare = order("x@y.example -v z@y.example");
        assert!(!bare.from_header && !bare.ignore_dots && bare.sender.is_none());
        assert_eq!(bare.recipients, ["x@y.example", "z@y.example"]);
        assert_eq!(
            order("-f x -- -odd@y.example").recipients,
            ["-odd@y.example"]
        );
        assert_eq!(
            parse(["-f".to_owned(), String::new()]),
            Ok(Job::Send(Order {
                sender: Some(String::new()),
                ..Order::default()
            }))
        );
    }

    #[test]
    fn what_others_write_for_their_sendmail_is_passed_over() {
        let order = order(
            "-oem -odb -om -os -ep -B8BITMIME -C /etc/mail.cf -h 3 -X /tmp/log -L tag -Ac -n -G -U -OTimeout=1 x@y.example",
        );
        assert_eq!(
            order,
            Order {
                recipients: vec!["x@y.example".to_owned()],
                ..Order::default()
            }
        );
        assert!(order_of_dots("-O IgnoreDots=True"));
    }

    fn order_of_dots(line: &str) -> bool {
        order(line).ignore_dots
    }

    #[test]
    fn modes() {
        assert!(matches!(read("-bs -f a@b.example"), Ok(Job::Smtp(_))));
        assert_eq!(read("-bp"), Ok(Job::ShowQueue));
        assert_eq!(read("-bi"), Ok(Job::Nothing));
        assert_eq!(read("-q"), Ok(Job::Nothing));
        assert_eq!(read("-q30m"), Ok(Job::Nothing));
        assert!(matches!(read("-bm -Fx y@z.example"), Ok(Job::Send(_))));
        assert!(read("-bd").unwrap_err().contains("postroad-mta"));
        assert!(read("-bt").is_err() && read("-Z").is_err() && read("-f").is_err());
    }

    #[test]
    fn a_mail_may_rest() {
        let minutes = Some(Hold::For(Duration::from_secs(600)));
        assert_eq!(order("--hold-for 10m -t").hold, minutes);
        assert_eq!(order("-v --hold-for=10m x@y.example").hold, minutes);
        let until = order("--hold-until 2026-12-24T18:00:00Z -v x@y.example");
        let at = Timestamp::from_millis(1_798_135_200_000);
        assert_eq!(
            (until.hold, until.is_verbose),
            (Some(Hold::Until(at)), true)
        );
        for bad in [
            "--hold-for",
            "--hold-for soon",
            "--hold-until 10m",
            "--undo x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delivery_reports() {
        let order = order("-N success,Delay -R hdrs -V id7 x@y.example");
        assert_eq!(
            order.notify,
            Some(Notify::On {
                success: true,
                failure: false,
                delay: true
            })
        );
        assert_eq!(
            (order.ret, order.envid.as_deref()),
            (Some(Ret::Headers), Some("id7"))
        );
        assert_eq!(super::notify("never"), Ok(Notify::Never));
        assert!(super::notify("sometimes").is_err() && super::ret("some").is_err());
    }
}
