//! Cipher lists as OpenSSL writes them; names that do not exist here are skipped. They choose among the
//! suites of TLS 1.2; those of 1.3 are always there, as with OpenSSL.

use rustls::crypto::ring::cipher_suite;
use rustls::{ALL_VERSIONS, SupportedCipherSuite};

use super::error::TlsError;

/// The suites of TLS 1.2 with OpenSSL's names, best first.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// Words of a list that stand for all suites.
const EVERYTHING: [&str; 5] = ["ALL", "DEFAULT", "HIGH", "ECDHE", "kECDHE"];

/// The suites of TLS 1.3, and after them those of TLS 1.2 that `list` allows, in its order.
///
/// # Errors
/// [`TlsError::NoSuite`] when it allows none of TLS 1.2.
pub fn parse(list: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen: Vec<(&str, SupportedCipherSuite)> = Vec::new();
    for word in list.split([':', ' ', ';']).filter(|word| !word.is_empty()) {
        if let Some(excluded) = word.strip_prefix(['!', '-']) {
            chosen.retain(|(name, _)| !covers(excluded, name));
        } else {
            let word = word.trim_start_matches('+');
            let more = SUITES.iter().filter(|(name, _)| covers(word, name));
            for suite in more {
                if !chosen.iter().any(|(name, _)| *name == suite.0) {
                    chosen.push(*suite);
                }
            }
        }
    }
    if chosen.is_empty() {
        return Err(TlsError::NoSuite { known: SUITES.map(|(name, _)| name).join(":") });
    }
    Ok(with_13(chosen.into_iter().map(|(_, suite)| suite)))
}

/// All suites, best first.
pub(crate) fn all() -> Vec<SupportedCipherSuite> {
    with_13(SUITES.into_iter().map(|(_, suite)| suite))
}

fn with_13(of_12: impl Iterator<Item = SupportedCipherSuite>) -> Vec<SupportedCipherSuite> {
    let of_13 = rustls::crypto::ring::ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some());
    of_13.copied().chain(of_12).collect()
}

/// Whether a word of a list means the suite of this name: by name, or by a part of it such as `AES128` or
/// `aRSA`.
fn covers(word: &str, name: &str) -> bool {
    let parts = |wanted: &str| name.split('-').any(|part| part == wanted);
    match word {
        _ if EVERYTHING.contains(&word) => true,
        "aRSA" => parts("RSA"),
        "aECDSA" => parts("ECDSA"),
        "AESGCM" => parts("GCM"),
        "AES" => parts("AES128") || parts("AES256"),
        word => word == name || word.split('+').all(|part| !part.is_empty() && parts(part)),
    }
}

/// The versions of TLS that are spoken: 1.3, and 1.2 unless `-o ssl_min_version` rules it out.
pub(crate) fn versions(only_13: bool) -> Vec<&'static rustls::SupportedProtocolVersion> {
    ALL_VERSIONS
        .iter()
        .copied()
        .filter(|version| !only_13 || version.version == rustls::ProtocolVersion::TLSv1_3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_12(list: &str) -> Vec<&'static str> {
        let chosen = parse(list).unwrap();
        let name =
            |suite: &SupportedCipherSuite| SUITES.iter().find(|(_, one)| one == suite).map(|(n, _)| *n);
        assert!(chosen.iter().filter(|suite| suite.tls13().is_some()).count() == 3);
        chosen.iter().filter_map(name).collect()
    }

    #[test]
    fn a_list_chooses_by_name_by_part_and_by_exclusion() {
        assert_eq!(of_12("HIGH:!aNULL:!MD5").len(), 6);
        assert_eq!(
            of_12("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:AES256-SHA"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"]
        );
        assert_eq!(of_12("HIGH:!AES128:!aECDSA:!CHACHA20"), ["ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(of_12("ECDHE+AES128").len(), 2);
    }

    #[test]
    fn a_list_of_nothing_we_have_is_refused_with_what_there_is() {
        for list in ["FOO", "", "RC4-SHA:DES-CBC3-SHA", "HIGH:!ALL"] {
            assert!(parse(list).unwrap_err().to_string().contains("ECDHE-RSA-AES256-GCM-SHA384"), "{list}");
        }
    }
}
