//! Log-ins whose lines cannot be written down beforehand, since the server has chance in its challenges.

use postroad_sasl::{ClientExchange, Credentials, Evidence, Mechanism, Password};

/// By what, who, and with which password.
#[derive(Debug, Clone)]
pub struct LogIn {
    mechanism: Mechanism,
    name: String,
    password: String,
}

impl LogIn {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.splitn(3, ' ');
        let mut word = || {
            words
                .next()
                .map(str::to_owned)
                .ok_or("mechanism, name, password")
        };
        let (mechanism, name, password) = (word()?, word()?, word()?);
        let mechanism = mechanism
            .parse()
            .map_err(|_| format!("no mechanism is {mechanism:?}"))?;
        Ok(Self {
            mechanism,
            name,
            password,
        })
    }

    /// The command, and what answers the challenges.
    pub fn begin(&self) -> Result<(String, ClientExchange), String> {
        let credentials = Credentials {
            mechanism: self.mechanism,
            authzid: None,
            authcid: self.name.clone(),
            evidence: Evidence::Password(Password::new(self.password.as_str())),
        };
        let begun = ClientExchange::start(credentials, b"eighteen octets ..");
        let (exchange, initial) = begun.map_err(|failure| failure.to_string())?;
        let initial = initial.map_or(String::new(), |text| format!(" {}", *text));
        Ok((format!("AUTH {}{initial}\r\n", self.mechanism), exchange))
    }
}
