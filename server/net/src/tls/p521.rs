//! Signatures of P-521, which `ring` does not have: made with a key of ours, and verified on certificates and
//! handshakes of peers.

use std::sync::{Arc, LazyLock};

use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use p521::ecdsa::{DerSignature, VerifyingKey};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id,
};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Bytes of a secret number.
const SCALAR_BYTES: usize = 66;

/// Everything of `ring`, and P-521.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { signature_verification_algorithms: *VERIFICATION, ..ring::default_provider() }
}

static VERIFICATION: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let ring = ring::default_provider().signature_verification_algorithms;
    let mapping = ring.mapping.iter().map(|&(scheme, algorithms)| {
        // Before TLS 1.3 a scheme names a hash, and the curve is that of the certificate.
        let also = match scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => &ALGORITHMS[..1],
            SignatureScheme::ECDSA_NISTP384_SHA384 => &ALGORITHMS[1..2],
            _ => &[],
        };
        (scheme, &*[algorithms, also].concat().leak())
    });
    let own = (SignatureScheme::ECDSA_NISTP521_SHA512, &ALGORITHMS[2..]);
    WebPkiSupportedAlgorithms {
        all: [ring.all, &ALGORITHMS].concat().leak(),
        mapping: mapping.chain([own]).collect::<Vec<_>>().leak(),
    }
});

/// A signature of P-521 over a hash of this kind.
#[derive(Debug)]
struct Verification {
    hash: fn(&[u8]) -> Vec<u8>,
    id: AlgorithmIdentifier,
}

static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 3] = [
    &Verification { hash: |message| Sha256::digest(message).to_vec(), id: alg_id::ECDSA_SHA256 },
    &Verification { hash: |message| Sha384::digest(message).to_vec(), id: alg_id::ECDSA_SHA384 },
    &Verification { hash: |message| Sha512::digest(message).to_vec(), id: alg_id::ECDSA_SHA512 },
];

impl SignatureVerificationAlgorithm for Verification {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = DerSignature::from_bytes(signature).map_err(|_| InvalidSignature)?;
        // A hash is a number: zeros before it do not change it, and one that is too short is refused.
        let hash = (self.hash)(message);
        let mut padded = [0; SCALAR_BYTES - 2];
        let start = padded.len() - hash.len();
        padded[start..].copy_from_slice(&hash);
        key.verify_prehash(&padded, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.id
    }
}

/// A private key of P-521.
pub(super) struct P521SigningKey(Arc<p521::ecdsa::SigningKey>);

impl P521SigningKey {
    /// The key of this secret number, without zeros before it; `None` when it is none of the curve.
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        let mut padded = [0; SCALAR_BYTES];
        padded[SCALAR_BYTES.checked_sub(secret.len())?..].copy_from_slice(secret);
        p521::ecdsa::SigningKey::from_slice(&padded).ok().map(|key| Self(Arc::new(key)))
    }

    /// The public key, in the form that begins with this byte: 4 is that of nearly all certificates, 2 and 3 are
    /// the compressed one.
    pub(super) fn public(&self, form: Option<&u8>) -> Box<[u8]> {
        self.0.verifying_key().to_sec1_point(form != Some(&4)).as_bytes().into()
    }
}

impl std::fmt::Debug for P521SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P521SigningKey")
    }
}

impl SigningKey for P521SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = SignatureScheme::ECDSA_NISTP521_SHA512;
        offered.contains(&scheme).then(|| Box::new(Self(Arc::clone(&self.0))) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P521, self.public(Some(&4))))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P521SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|_| Error::General("signing failed".into()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6979, A.2.7: the secret number, and the signature of `sample` with SHA-512. A number of one use that
    /// is not what the RFC says would give another signature.
    const SECRET: &str = "fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836a6\
                          d16fcc1466f6d8fbec67db89ec0c08b0e996b83538";
    const SIGNATURE: [&str; 2] = [
        "c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8\
         455cc91f9b15bf05ec36e377fa",
        "617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb\
         1dccc43997f1ee0e44da4a67a",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_signature_is_the_one_of_the_standard_and_is_verified() {
        let key = P521SigningKey::new(&bytes(SECRET)).unwrap();
        assert!(key.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]).is_none());
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP521_SHA512]).unwrap();
        let signature = signer.sign(b"sample").unwrap();
        let [r, s] = SIGNATURE.map(bytes);
        let expected = DerSignature::from(
            p521::ecdsa::Signature::from_slice(&[&[0], &r[..], &[0], &s[..]].concat()).unwrap(),
        );
        assert_eq!(signature, expected.as_bytes());
        for form in [2, 4] {
            let public = key.public(Some(&form));
            assert!(ALGORITHMS[2].verify_signature(&public, b"sample", &signature).is_ok());
            assert!(ALGORITHMS[2].verify_signature(&public, b"another", &signature).is_err());
            assert!(ALGORITHMS[0].verify_signature(&public, b"sample", &signature).is_err());
        }
        assert!(ALGORITHMS[2].verify_signature(&[4; 133], b"sample", &signature).is_err());
        assert!(ALGORITHMS[2].verify_signature(&key.public(Some(&4)), b"sample", &signature[1..]).is_err());
    }

    #[test]
    fn a_number_that_is_none_of_the_curve_is_refused() {
        for secret in [&[][..], &[0xff; 66], &[1; 67]] {
            assert!(P521SigningKey::new(secret).is_none());
        }
    }
}
