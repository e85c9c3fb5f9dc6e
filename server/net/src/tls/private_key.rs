//! The private key of a certificate: which kind it is, whatever it is labelled, and the key to sign with.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;

use super::der::{
    BIT_STRING, INTEGER, OBJECT_ID, OCTET_STRING, Reader, SEQUENCE, TAGGED_0, TAGGED_1, encode, significant,
};
use super::error::TlsFileError;
use super::p521::P521SigningKey;

const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const ED25519: &[u8] = b"\x2b\x65\x70";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x2b\x81\x04\x00\x23";

/// Kinds that cannot be used, and curves, as messages name them.
const NAMES: [(&[u8], &str); 13] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "an RSA-PSS key"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "a DSA key"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01", "a DH key"),
    (b"\x2b\x65\x6e", "an X25519 key"),
    (b"\x2b\x65\x6f", "an X448 key"),
    (b"\x2b\x65\x71", "an Ed448 key"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x01", "a P-192 key"),
    (b"\x2b\x81\x04\x00\x21", "a P-224 key"),
    (b"\x2b\x81\x04\x00\x0a", "a secp256k1 key"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x07", "a brainpoolP256r1 key"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b", "a brainpoolP384r1 key"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d", "a brainpoolP512r1 key"),
    (b"\x2a\x81\x1c\xcf\x55\x01\x82\x2d", "an SM2 key"),
];

/// Bits of the RSA keys that can be used, least and most.
const RSA_BITS: (usize, usize) = (2048, 4096);
/// The least public exponent that can be used.
const RSA_EXPONENT_MIN: u128 = 65_537;
/// Integers of RSA and of DSA keys in the oldest form, the version included.
const RSA_INTEGERS: usize = 9;
const DSA_INTEGERS: usize = 6;

/// The public key of a certificate.
#[derive(Debug)]
pub(super) struct PublicKey {
    algorithm: Vec<u8>,
    /// The object identifier of the curve, of an elliptic curve.
    curve: Option<Vec<u8>>,
    bits: Vec<u8>,
}

impl PublicKey {
    /// That of `certificate`; `None` when it is no certificate.
    pub(super) fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut fields = Reader(certificate).inner(SEQUENCE)?.inner(SEQUENCE)?;
        // The version, which the oldest one does not say.
        if fields.tag() == Some(TAGGED_0) {
            fields.whole()?;
        }
        // Serial number, algorithm of the signature, issuer, validity, subject.
        for _ in 0..5 {
            fields.whole()?;
        }
        Self::read(fields.inner(SEQUENCE)?)
    }

    fn read(mut info: Reader<'_>) -> Option<Self> {
        let mut algorithm = info.inner(SEQUENCE)?;
        Some(Self {
            algorithm: algorithm.content(OBJECT_ID)?.to_vec(),
            curve: algorithm.content(OBJECT_ID).map(<[u8]>::to_vec),
            // The first byte is the count of bits that the last one has too much.
            bits: info.content(BIT_STRING)?.get(1..)?.to_vec(),
        })
    }
}

/// A private key, as far as it has been understood.
pub(super) enum PrivateKey {
    /// RSA, in the form of PKCS#1.
    Rsa(Vec<u8>),
    /// A secret number, and the object identifier of its curve if that is said.
    Ec { secret: Vec<u8>, curve: Option<Vec<u8>> },
    /// Ed25519, in the form of PKCS#8.
    Ed25519(Vec<u8>),
}

impl PrivateKey {
    /// The key in `der`: PKCS#8, PKCS#1 or SEC1. What follows it is ignored.
    pub(super) fn read(der: &[u8]) -> Result<Self, TlsFileError> {
        let whole = Reader(der).whole().ok_or(TlsFileError::NotKey)?;
        let mut fields = Reader(whole).inner(SEQUENCE).ok_or(TlsFileError::NotKey)?;
        if fields.tag() == Some(SEQUENCE) {
            // PKCS#8 with a passphrase begins with how it is encrypted, and has the encrypted key after that.
            let passphrase = fields.whole().and_then(|_| fields.content(OCTET_STRING)).is_some();
            return Err(if passphrase { TlsFileError::Passphrase } else { TlsFileError::NotKey });
        }
        let all = fields;
        let version = fields.integer().ok_or(TlsFileError::NotKey)?;
        match fields.tag() {
            Some(SEQUENCE) if version <= &[1][..] => Self::pkcs8(whole, fields),
            Some(INTEGER) => match integers(all) {
                DSA_INTEGERS => Err(unsupported("a DSA key")),
                RSA_INTEGERS.. => Ok(Self::Rsa(whole.to_vec())),
                _ => Err(TlsFileError::NotKey),
            },
            Some(OCTET_STRING) => Self::sec1(all, None),
            _ => Err(TlsFileError::NotKey),
        }
    }

    fn pkcs8(whole: &[u8], mut fields: Reader<'_>) -> Result<Self, TlsFileError> {
        let (mut algorithm, key) = fields
            .inner(SEQUENCE)
            .and_then(|algorithm| Some((algorithm, fields.content(OCTET_STRING)?)))
            .ok_or(TlsFileError::NotKey)?;
        match algorithm.content(OBJECT_ID).ok_or(TlsFileError::NotKey)? {
            RSA => Ok(Self::Rsa(key.to_vec())),
            EC => {
                let curve = algorithm.whole().ok_or(TlsFileError::NotKey)?;
                Self::sec1(Reader(key).inner(SEQUENCE).ok_or(TlsFileError::NotKey)?, Some(Reader(curve)))
            }
            ED25519 => Ok(Self::Ed25519(whole.to_vec())),
            other => Err(unsupported(&name(other))),
        }
    }

    fn sec1(mut fields: Reader<'_>, curve: Option<Reader<'_>>) -> Result<Self, TlsFileError> {
        let secret =
            fields.integer().and_then(|_| fields.content(OCTET_STRING)).ok_or(TlsFileError::NotKey)?;
        let curve = match curve.or_else(|| fields.inner(TAGGED_0)) {
            Some(mut curve) => Some(curve.content(OBJECT_ID).ok_or_else(unnamed_curve)?.to_vec()),
            None => None,
        };
        Ok(Self::Ec { secret: significant(secret).to_vec(), curve })
    }

    /// The key to sign with for a certificate with this public key.
    pub(super) fn signing_key(&self, public: &PublicKey) -> Result<Arc<dyn SigningKey>, TlsFileError> {
        match self {
            Self::Rsa(pkcs1) => rsa(pkcs1, public),
            Self::Ec { secret, curve } => {
                let of_certificate = (public.algorithm == EC).then_some(public.curve.as_ref()).flatten();
                let Some(curve) = curve.as_ref().or(of_certificate) else {
                    return Err(if public.algorithm == EC {
                        unnamed_curve()
                    } else {
                        TlsFileError::NotOfCertificate
                    });
                };
                elliptic(secret, curve, public)
            }
            Self::Ed25519(pkcs8) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&pkcs8[..]));
                checked(any_supported_type(&key).map_err(|_| TlsFileError::NotKey)?, public)
            }
        }
    }
}

fn integers(mut fields: Reader<'_>) -> usize {
    std::iter::from_fn(|| fields.integer()).count()
}

fn rsa(pkcs1: &[u8], public: &PublicKey) -> Result<Arc<dyn SigningKey>, TlsFileError> {
    let mut fields = Reader(pkcs1).inner(SEQUENCE).ok_or(TlsFileError::NotKey)?;
    let mut integer = || fields.integer().ok_or(TlsFileError::NotKey);
    let (version, modulus, exponent) = (integer()?, integer()?, integer()?);
    let bits = modulus.first().map_or(0, |&first| modulus.len() * 8 - first.leading_zeros() as usize);
    if bits < RSA_BITS.0 || bits > RSA_BITS.1 {
        return Err(unsupported(&format!("an RSA key of {bits} bits")));
    }
    if !version.is_empty() {
        return Err(unsupported("an RSA key of more than two primes"));
    }
    if exponent.len() <= size_of::<u128>() {
        let exponent = exponent.iter().fold(0, |number, &byte| number << 8 | u128::from(byte));
        if exponent < RSA_EXPONENT_MIN {
            return Err(unsupported(&format!("an RSA key with the public exponent {exponent}")));
        }
    }
    let key = PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(pkcs1));
    let unusual =
        |_| unsupported(&format!("an RSA key of {bits} bits that is damaged or has an unusual length"));
    checked(any_supported_type(&key).map_err(unusual)?, public)
}

/// `ring` wants a P-256 or P-384 key with its public key: that of the certificate serves keys that have none or
/// another form of it, and `ring` checks that both belong together.
fn elliptic(secret: &[u8], curve: &[u8], public: &PublicKey) -> Result<Arc<dyn SigningKey>, TlsFileError> {
    let scalar_bytes = match curve {
        P256 => 32,
        P384 => 48,
        P521 => 66,
        other => return Err(unsupported(&name(other))),
    };
    if public.algorithm != EC || public.curve.as_deref() != Some(curve) {
        return Err(TlsFileError::NotOfCertificate);
    }
    if curve == P521 {
        let key = P521SigningKey::new(secret).ok_or(TlsFileError::NotKey)?;
        let same = *key.public(public.bits.first()) == public.bits[..];
        return if same { Ok(Arc::new(key)) } else { Err(TlsFileError::NotOfCertificate) };
    }
    if public.bits.first() != Some(&4) {
        return Err(unsupported("a key whose certificate has a compressed public key"));
    }
    // A longer one is a damaged certificate, and could be too long to be written below.
    if public.bits.len() != 1 + 2 * scalar_bytes {
        return Err(TlsFileError::NotOfCertificate);
    }
    let zeros = vec![0; usize::checked_sub(scalar_bytes, secret.len()).ok_or(TlsFileError::NotKey)?];
    let sec1 = encode(
        SEQUENCE,
        &[
            &encode(INTEGER, &[&[1]]),
            &encode(OCTET_STRING, &[&zeros, secret]),
            &encode(TAGGED_1, &[&encode(BIT_STRING, &[&[0], &public.bits])]),
        ],
    );
    let pkcs8 = encode(
        SEQUENCE,
        &[
            &encode(INTEGER, &[&[0]]),
            &encode(SEQUENCE, &[&encode(OBJECT_ID, &[EC]), &encode(OBJECT_ID, &[curve])]),
            &encode(OCTET_STRING, &[&sec1]),
        ],
    );
    any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)))
        .map_err(|_| TlsFileError::NotOfCertificate)
}

/// `key`, if its public key is that of the certificate.
fn checked(key: Arc<dyn SigningKey>, public: &PublicKey) -> Result<Arc<dyn SigningKey>, TlsFileError> {
    let own = key.public_key().and_then(|info| PublicKey::read(Reader(&info).inner(SEQUENCE)?));
    if own.is_some_and(|own| own.algorithm == public.algorithm && own.bits == public.bits) {
        Ok(key)
    } else {
        Err(TlsFileError::NotOfCertificate)
    }
}

fn unnamed_curve() -> TlsFileError {
    unsupported("a key that writes its curve out instead of naming it")
}

fn unsupported(found: &str) -> TlsFileError {
    TlsFileError::Unsupported { found: found.to_owned() }
}

/// A kind of key in words, or the digits of its object identifier.
fn name(id: &[u8]) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == id) {
        return (*name).to_owned();
    }
    let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("a key of an unknown kind (object identifier {})", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of P-256 as PKCS#8, and its certificate.
    fn pair() -> (Vec<u8>, PublicKey) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        (key.serialize_der(), PublicKey::from_certificate(certificate.der()).unwrap())
    }

    /// The key in `pkcs8` as SEC1, with these values after the secret number.
    fn sec1(pkcs8: &[u8], after: &[u8]) -> Vec<u8> {
        let PrivateKey::Ec { secret, .. } = PrivateKey::read(pkcs8).unwrap() else {
            panic!("a key of P-256")
        };
        encode(SEQUENCE, &[&encode(INTEGER, &[&[1]]), &encode(OCTET_STRING, &[&secret]), after])
    }

    fn of_algorithm(id: &[u8]) -> Vec<u8> {
        let algorithm = encode(SEQUENCE, &[&encode(OBJECT_ID, &[id])]);
        encode(SEQUENCE, &[&encode(INTEGER, &[&[0]]), &algorithm, &encode(OCTET_STRING, &[&[0; 57]])])
    }

    #[test]
    fn a_key_of_an_elliptic_curve_needs_neither_its_curve_nor_its_public_key() {
        let ((pkcs8, public), (_, other)) = (pair(), pair());
        let curve = encode(TAGGED_0, &[&encode(OBJECT_ID, &[P256])]);
        let longer = [&pkcs8[..], b"\n"].concat();
        for der in [pkcs8.clone(), sec1(&pkcs8, &[]), sec1(&pkcs8, &curve), longer] {
            let key = PrivateKey::read(&der).unwrap();
            assert!(key.signing_key(&public).is_ok());
            assert!(matches!(key.signing_key(&other), Err(TlsFileError::NotOfCertificate)));
        }
        let curve = encode(TAGGED_0, &[&encode(OBJECT_ID, &[P384])]);
        let key = PrivateKey::read(&sec1(&pkcs8, &curve)).unwrap();
        assert!(matches!(key.signing_key(&public), Err(TlsFileError::NotOfCertificate)));
    }

    #[test]
    fn a_public_key_of_another_length_is_no_pair() {
        let (pkcs8, public) = pair();
        let key = PrivateKey::read(&pkcs8).unwrap();
        for len in [1, 64, 66, 70_000] {
            let mut bits = public.bits.clone();
            bits.resize(len, 7);
            let public = PublicKey { bits, algorithm: EC.to_vec(), curve: Some(P256.to_vec()) };
            assert!(matches!(key.signing_key(&public), Err(TlsFileError::NotOfCertificate)), "{len}");
        }
    }

    #[test]
    fn a_changed_byte_is_read_or_refused_and_never_panics() {
        let (pkcs8, public) = pair();
        for at in 0..pkcs8.len() {
            for byte in [0, 1, 2, 3, 4, 0x30, 0x7f, 0x80, 0x82, 0x84, 0xff] {
                let mut changed = pkcs8.clone();
                changed[at] = byte;
                let _ = PrivateKey::read(&changed).and_then(|key| key.signing_key(&public));
                let _ = PublicKey::from_certificate(&CertificateDer::from(changed));
            }
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused_by_its_kind() {
        let (pkcs8, public) = pair();
        let refused = |der: &[u8]| {
            let key = PrivateKey::read(der).and_then(|key| key.signing_key(&public).map(|_| ()));
            key.unwrap_err().to_string()
        };
        for (id, name) in NAMES.iter().take(6) {
            assert!(refused(&of_algorithm(id)).starts_with(&format!("{name} cannot be used: ")));
        }
        let unknown = "a key of an unknown kind (object identifier 2b 06) cannot be used: ";
        assert!(refused(&of_algorithm(b"\x2b\x06")).starts_with(unknown));
        for (id, name) in &NAMES[6..] {
            let curve = encode(TAGGED_0, &[&encode(OBJECT_ID, &[id])]);
            assert!(refused(&sec1(&pkcs8, &curve)).starts_with(&format!("{name} cannot be used: ")));
        }
        let written_out = encode(TAGGED_0, &[&encode(SEQUENCE, &[&encode(INTEGER, &[&[1]])])]);
        assert!(refused(&sec1(&pkcs8, &written_out)).starts_with("a key that writes its curve out"));
        let number = |number: &[u8]| encode(INTEGER, &[number]);
        let rsa = |version: u8, modulus: &[u8], exponent: u8| {
            let rest = number(&[1]).repeat(6);
            encode(SEQUENCE, &[&number(&[version]), &number(modulus), &number(&[exponent]), &rest])
        };
        for (der, said) in [
            (rsa(0, &[0xff; 128], 3), "an RSA key of 1024 bits cannot"),
            (rsa(0, &[0x01; 256], 3), "an RSA key of 2041 bits cannot"),
            (rsa(0, &[0xff; 1024], 3), "an RSA key of 8192 bits cannot"),
            (rsa(1, &[0xff; 256], 3), "an RSA key of more than two primes cannot"),
            (rsa(0, &[0xff; 256], 3), "an RSA key with the public exponent 3 cannot"),
            (encode(SEQUENCE, &[&number(&[1]).repeat(6)]), "a DSA key cannot"),
            (
                encode(SEQUENCE, &[&encode(SEQUENCE, &[]), &encode(OCTET_STRING, &[])]),
                "the key has a passphrase",
            ),
        ] {
            let got = refused(&der);
            assert!(got.starts_with(said), "{said}: {got}");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused_and_changed_bytes_never_panic() {
        let (pkcs8, public) = pair();
        for len in 0..pkcs8.len() {
            assert!(matches!(PrivateKey::read(&pkcs8[..len]), Err(TlsFileError::NotKey)), "{len}");
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        for at in 0..certificate.der().len() {
            assert!(
                PublicKey::from_certificate(&CertificateDer::from(certificate.der()[..at].to_vec()))
                    .is_none(),
                "{at}"
            );
        }
        for der in [&pkcs8[..], certificate.der()] {
            for at in 0..der.len() {
                for byte in [0, 1, 4, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                    let mut changed = der.to_vec();
                    changed[at] = byte;
                    let _ = PrivateKey::read(&changed).and_then(|key| key.signing_key(&public));
                    let _ = PublicKey::from_certificate(&CertificateDer::from(changed));
                }
            }
        }
    }
}
