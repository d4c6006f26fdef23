//! OAUTHBEARER (RFC 7628) and Google's XOAUTH2: a token that somebody else gave to the client.

use super::named;
use crate::{Credentials, Evidence, Mechanism, Password};

const END: char = '\u{1}';

/// Takes the client's only message.
pub fn parse(mechanism: Mechanism, text: &str) -> Option<Credentials> {
    let (name, pairs) = match mechanism {
        Mechanism::OauthBearer => {
            // RFC 7628 §3.1: the header of GS2 without channel binding, then pairs.
            let (header, pairs) = text.split_once(END)?;
            let mut parts = header.split(',');
            let (flag, authzid, end) = (parts.next()?, parts.next()?, parts.next()?);
            if !matches!(flag, "n" | "y") || !end.is_empty() || parts.next().is_some() {
                return None;
            }
            let name = match authzid {
                "" => String::new(),
                authzid => authzid
                    .strip_prefix("a=")?
                    .replace("=2C", ",")
                    .replace("=3D", "="),
            };
            (name, pairs)
        }
        _ => {
            let (user, pairs) = text.split_once(END)?;
            (named(user.strip_prefix("user=")?)?, pairs)
        }
    };
    let pairs = pairs.strip_suffix(END)?.strip_suffix(END)?;
    let mut token = None;
    for pair in pairs.split(END) {
        let (key, value) = pair.split_once('=')?;
        if key == "auth" && token.replace(bearer(value)?).is_some() {
            return None;
        }
    }
    Some(Credentials {
        mechanism,
        authzid: named(&name),
        authcid: name,
        evidence: Evidence::Token(token?),
    })
}

/// RFC 6750 §2.1.
fn bearer(value: &str) -> Option<Password> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let fits =
        scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty() && token.bytes().all(allowed);
    fits.then(|| Password::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7628_and_of_google() {
        let said = "n,a=user@example.com,\u{1}host=server.example.com\u{1}port=143\u{1}auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\u{1}\u{1}";
        let credentials = parse(Mechanism::OauthBearer, said).unwrap();
        assert_eq!(credentials.authcid, "user@example.com");
        let token = Password::new("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        assert_eq!(credentials.evidence, Evidence::Token(token));
        let said = "user=someuser@example.com\u{1}auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\u{1}\u{1}";
        let credentials = parse(Mechanism::Xoauth2, said).unwrap();
        assert_eq!(credentials.authcid, "someuser@example.com");
        let nobody = parse(Mechanism::OauthBearer, "n,,\u{1}auth=bearer x\u{1}\u{1}").unwrap();
        assert_eq!((nobody.authzid, nobody.authcid), (None, String::new()));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        for bad in [
            "",
            "\u{1}",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Basic x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a b\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}auth=Bearer y\u{1}\u{1}",
            "p=tls-exporter,,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,user,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,,n=x\u{1}auth=Bearer x\u{1}\u{1}",
        ] {
            assert!(parse(Mechanism::OauthBearer, bad).is_none(), "{bad:?}");
        }
        for bad in [
            "user=\u{1}auth=Bearer x\u{1}\u{1}",
            "auth=Bearer x\u{1}\u{1}",
        ] {
            assert!(parse(Mechanism::Xoauth2, bad).is_none(), "{bad:?}");
        }
    }
}
