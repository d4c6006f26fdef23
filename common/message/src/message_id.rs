use std::fmt;

use postroad_address::Domain;
use postroad_envelope::Timestamp;

/// The id of a message with its angle brackets (RFC 5322 §3.6.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(String);

impl MessageId {
    /// A new id from the time, ten random octets and our name.
    pub fn generate(now: Timestamp, random: [u8; 10], host: &Domain) -> Self {
        let random: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
        // RFC 5322 §3.6.4: the right side is a dot-atom or a literal in brackets; an A-label always fits.
        Self(format!(
            "<{:x}.{random}@{}>",
            now.as_millis(),
            host.a_label()
        ))
    }

    /// The first id in the text of a field, whatever stands around it.
    pub fn find(text: &str) -> Option<Self> {
        let start = text.find('<')?;
        let inner = text.get(start + 1..)?;
        let inner = inner.get(..inner.find('>')?)?;
        let valid = inner.contains('@')
            && inner.len() <= 996
            && inner
                .chars()
                .all(|c| !c.is_control() && c != ' ' && c != '<');
        valid.then(|| Self(format!("<{inner}>")))
    }

    /// The text with its brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `Message-ID: <…>` with its line end.
    pub fn to_field(&self) -> Vec<u8> {
        format!("Message-ID: {}\r\n", self.0).into_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_are_found_again() {
        let host = Domain::parse("bücher.example").unwrap();
        let id = MessageId::generate(Timestamp::from_millis(0x18b), [0xab; 10], &host);
        assert_eq!(
            id.as_str(),
            "<18b.abababababababababab@xn--bcher-kva.example>"
        );
        assert_eq!(MessageId::find(&format!("(x) {id} y")), Some(id));
        for bad in ["", "a@b", "<ab>", "<a b@c>", "<<a@b>", "<a@b"] {
            assert_eq!(MessageId::find(bad), None, "{bad}");
        }
    }
}
