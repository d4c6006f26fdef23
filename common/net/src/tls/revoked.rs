//! Certificates that count no more although their time is not over: a file with their serial numbers, watched like the
//! certificates themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::files::{Facts, Stamp};
use super::{CERTIFICATE_WATCH, Reloads};
use crate::Error;

/// Octets of the file; a number takes some 33.
const LARGEST: u64 = 4 << 20;
/// RFC 5280 §4.1.2.2: up to 20 octets.
const LONGEST: usize = 40;

/// RFC 5280 §4.1.2.2: what an authority tells its certificates apart by, in small hexadecimal digits without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

impl Serial {
    /// The number in a certificate.
    pub fn of(octets: &[u8]) -> Self {
        let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        Self(digits.trim_start_matches('0').to_owned())
    }
}

/// Digits in either case, also in pairs with colons between, as OpenSSL shows them.
impl FromStr for Serial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let digits = digits.trim_start_matches('0');
        let good = !digits.is_empty()
            && digits.len() <= LONGEST
            && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
        match good {
            true => Ok(Self(digits.to_owned())),
            false => Err(Error::Syntax {
                text: text.to_owned(),
                expected: "the serial number of a certificate in hexadecimal digits, as `postroad pki show --json` has it",
            }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Serials = BTreeSet<Serial>;

/// A list of serial numbers, one in a line; what follows `#` is for people. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    list: watch::Sender<Serials>,
    seen: Mutex<Stamp>,
}

impl Revocations {
    /// Nothing is revoked.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those in this file, which must be there. Blocks.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let seen = Mutex::new(Stamp::of([&path.to_owned()]));
        Ok(Self(Some(Arc::new(Shared {
            list: watch::Sender::new(read(path)?),
            path: path.to_owned(),
            seen,
        }))))
    }

    /// Whether it is on the list.
    pub fn contains(&self, serial: &Serial) -> bool {
        let shared = self.0.as_ref();
        shared.is_some_and(|shared| shared.list.borrow().contains(serial))
    }

    /// Waits until it is.
    pub async fn revoked(&self, serial: &Serial) {
        match &self.0 {
            // The sender lives in `self`, so the wait ends only by the number.
            Some(shared) => {
                let mut list = shared.list.subscribe();
                let _ = list.wait_for(|list| list.contains(serial)).await;
            }
            None => pending().await,
        }
    }

    /// Reads the file again if it changed. On an error the list stays as it was. Blocks.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let Some(shared) = &self.0 else {
            return Ok(false);
        };
        let now = Stamp::of([&shared.path]);
        {
            let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Ok(false);
            }
            *seen = now;
        }
        shared.list.send_replace(read(&shared.path)?);
        Ok(true)
    }

    /// Takes up a changed file, and tells of it. Blocks.
    pub fn refresh(&self) {
        Reloads::refresh(self);
    }

    /// Looks at the file now and then, until `shutdown`. A task of the caller.
    pub async fn watch(self, shutdown: CancellationToken) {
        match &self.0 {
            Some(_) => super::watch(self, CERTIFICATE_WATCH, shutdown).await,
            None => shutdown.cancelled().await,
        }
    }
}

impl Reloads for Revocations {
    fn reload_if_changed(&self) -> Result<bool, Error> {
        Self::reload_if_changed(self)
    }

    fn facts(&self) -> Vec<Facts> {
        Vec::new()
    }

    fn warn_before(&self) -> Duration {
        Duration::ZERO
    }

    fn announce(&self) {
        if let Some(shared) = &self.0 {
            let count = shared.list.borrow().len();
            info!(event = "revocations_reloaded", path = %shared.path.display(), count);
        }
    }
}

fn read(path: &Path) -> Result<Serials, Error> {
    let unreadable = |error| {
        Error::file(
            path,
            format!("the list of revoked certificates cannot be read: {error}"),
        )
    };
    if fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
        return Err(Error::file(
            path,
            format!("is no list of revoked certificates: it has more than {LARGEST} octets"),
        ));
    }
    parse(&fs::read_to_string(path).map_err(unreadable)?)
        .map_err(|(line, error)| Error::file(path, format!("line {line}: {error}")))
}

fn parse(text: &str) -> Result<Serials, (usize, Error)> {
    let mut serials = Serials::new();
    for (number, line) in (1..).zip(text.lines()) {
        let serial = line.split('#').next().unwrap_or_default().trim();
        if !serial.is_empty() {
            serials.insert(serial.parse().map_err(|error| (number, error))?);
        }
    }
    Ok(serials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_number_in_a_line_and_words_for_people() {
        let text = "# gone\n\n7F:00:ab  # mta, stolen\n0000A1\r\n";
        let serials = parse(text).unwrap();
        let shown: Vec<_> = serials.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["7f00ab", "a1"]);
        assert!(serials.contains(&Serial::of(&[0, 0xa1])));
        assert_eq!(parse("").unwrap(), Serials::new());
        for bad in ["xyz", "0", "12 34", &"1".repeat(41), "0x12", "msa"] {
            let (line, error) = parse(&format!("a1\n{bad}\n")).unwrap_err();
            assert_eq!(line, 2, "{bad}");
            assert!(error.to_string().contains("serial number"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_told_with_its_line_and_leaves_the_list_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let missing = Revocations::open(&path).unwrap_err().to_string();
        assert!(missing.contains("revoked: the list"), "{missing}");
        fs::write(&path, "a1\n").unwrap();
        let revoked = Revocations::open(&path).unwrap();
        let (a1, b2): (Serial, Serial) = ("a1".parse().unwrap(), "b2".parse().unwrap());
        assert!(revoked.contains(&a1) && !revoked.contains(&b2));
        assert!(!revoked.reload_if_changed().unwrap());

        fs::write(&path, "b2\nnonsense\n").unwrap();
        let told = revoked.reload_if_changed().unwrap_err().to_string();
        assert!(told.contains("revoked: line 2: \"nonsense\""), "{told}");
        assert!(!revoked.reload_if_changed().unwrap(), "it is told once");
        assert!(revoked.contains(&a1) && !revoked.contains(&b2));
        fs::remove_file(&path).unwrap();
        assert!(revoked.reload_if_changed().is_err());
        assert!(revoked.contains(&a1));

        let waits = revoked.clone();
        let waiting = tokio::spawn(async move { waits.revoked(&"b2".parse().unwrap()).await });
        fs::write(&path, "b2\n").unwrap();
        assert!(revoked.reload_if_changed().unwrap());
        waiting.await.unwrap();
        assert!(!revoked.contains(&a1));
    }
}
