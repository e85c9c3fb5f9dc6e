//! TLS: the files of certificates and keys that are used, and those that are refused by name.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::{Folder, Launch};
use crate::tls::World;

#[test]
fn files_that_are_none_end_the_server_by_name() {
    let world = World::new();
    let other = world.authority.sign();
    let (chain, key) = (world.folder.file("chain.pem"), world.folder.file("key.pem"));
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let (foreign, text) = (world.folder.file("other.pem"), world.folder.file("text"));
    std::fs::write(&foreign, &other.key_pem).unwrap();
    std::fs::write(&text, "text").unwrap();
    let (foreign, text) = (foreign.to_str().unwrap(), text.to_str().unwrap());
    for (options, parts) in [
        (format!("ssl_chain_cert=/nonexistent,ssl_key={key}"), ["/nonexistent", "No such file"]),
        (format!("ssl_chain_cert={chain},ssl_key=/nonexistent"), ["/nonexistent", "No such file"]),
        (format!("ssl_chain_cert={text},ssl_key={key}"), [text, "no certificate"]),
        (format!("ssl_chain_cert={chain},ssl_key={text}"), [text, "no private key"]),
        (format!("ssl_chain_cert={chain}"), [chain, "no private key"]),
        (format!("ssl_chain_cert={chain},ssl_key={foreign}"), [foreign, "of another certificate"]),
        (format!("ssl_chain_cert={chain},ssl_key={key},ssl_ca_cert={text}"), [text, "no certificate"]),
    ] {
        let exit = Launch::new(&["-Z", "-o", &options]).exit();
        assert_eq!(exit.code(), Some(64), "{options}: {}", exit.stderr);
        assert!(parts.iter().all(|part| exit.stderr.contains(part)), "{options}: {}", exit.stderr);
    }
}

#[test]
fn key_and_certificate_may_share_a_file_and_a_key_be_in_bytes() {
    let world = World::new();
    let identity = world.authority.sign();
    let (both, der) = (world.folder.file("both.pem"), world.folder.file("key.der"));
    std::fs::write(&both, identity.certificate_pem.clone() + &identity.key_pem).unwrap();
    std::fs::write(&der, identity.key_der()).unwrap();
    for options in [
        format!("ssl_chain_cert={}", both.display()),
        format!("ssl_chain_cert={},ssl_key={},ssl_keyformat=2", both.display(), der.display()),
    ] {
        let server = Launch::new(&["-Z", "-o", &options]).serve();
        world.connect(&server).check("mn\r\n", "MN\r\n");
    }
}

/// Runs `openssl` in `folder` with these words, none of which contains a blank.
fn openssl(folder: &Folder, words: &str) {
    let output = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(folder.path())
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a client that is OpenSSL, and verifies the server, is served. `words` are further arguments of
/// `s_client`; files are those of `folder`.
fn openssl_is_served(folder: &Folder, address: SocketAddr, words: &str) -> bool {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-connect", &address.to_string()])
        .args(words.split_whitespace())
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    // It may have ended before.
    let _ = client.stdin.take().expect("piped").write_all(b"mn\r\nquit\r\n");
    client.wait_with_output().unwrap().stdout == b"MN\r\n"
}

/// Arguments of `openssl req` for a new key of each kind that is used.
const KINDS: [&str; 5] = [
    "rsa:2048",
    "ec -pkeyopt ec_paramgen_curve:P-256",
    "ec -pkeyopt ec_paramgen_curve:P-384",
    P521,
    "ed25519",
];
const P521: &str = "ec -pkeyopt ec_paramgen_curve:P-521";

/// Makes `{name}.crt` and `{name}.key` with a new key of this kind.
fn self_signed(folder: &Folder, name: &str, kind: &str) {
    let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost";
    openssl(folder, &format!("req -x509 -nodes -newkey {kind} -keyout {name}.key -out {name}.crt {names}"));
}

/// The value of `-o` for a certificate and a key in `folder`.
fn pair(folder: &Folder, chain: &str, key: &str) -> String {
    format!("ssl_chain_cert={},ssl_key={}", folder.file(chain).display(), folder.file(key).display())
}

#[test]
fn keys_of_every_kind_are_used_whatever_their_label_and_form() {
    let folder = Folder::new();
    for kind in KINDS {
        self_signed(&folder, "a", kind);
        let mut keys = vec!["a.key"];
        if kind.starts_with("ec") {
            openssl(&folder, "ec -in a.key -out sec1.key");
            openssl(&folder, "ec -in a.key -out no-public.key -no_public");
            openssl(&folder, "pkey -in no-public.key -out no-public.p8");
            openssl(&folder, "ec -in a.key -out compressed.key -conv_form compressed");
            keys.extend(["sec1.key", "no-public.key", "no-public.p8", "compressed.key"]);
        }
        if kind.starts_with("rsa") {
            openssl(&folder, "rsa -in a.key -out pkcs1.key -traditional");
            keys.push("pkcs1.key");
        }
        for key in keys {
            let text = std::fs::read_to_string(folder.file(key)).unwrap();
            let label = text.split_once("-----BEGIN ").unwrap().1.split_once("-----").unwrap().0;
            for other in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
                std::fs::write(folder.file("labelled"), text.replace(label, other)).unwrap();
                let server = Launch::new(&["-Z", "-o", &pair(&folder, "a.crt", "labelled")]).serve();
                for version in ["-tls1_2", "-tls1_3"] {
                    let words = format!("{version} -CAfile a.crt -verify_hostname localhost");
                    assert!(
                        openssl_is_served(&folder, server.address, &words),
                        "{kind} {key} {other} {version}"
                    );
                }
            }
        }
        openssl(&folder, "pkey -in a.key -out a.der -outform DER");
        let options = pair(&folder, "a.crt", "a.der") + ",ssl_keyformat=DER";
        let server = Launch::new(&["-Z", "-o", &options]).serve();
        assert!(openssl_is_served(&folder, server.address, "-CAfile a.crt"), "{kind} DER");
    }
}

#[test]
fn certificates_are_read_as_openssl_reads_them() {
    let world = World::new();
    let folder = &world.folder;
    let read = |name: &str| std::fs::read_to_string(folder.file(name)).unwrap();
    openssl(folder, "x509 -in chain.pem -out text.pem -text");
    openssl(folder, "x509 -in chain.pem -out trusted.pem -trustout -setalias name -addtrust serverAuth");
    let forms: [fn(String) -> String; 7] = [
        |pem| pem.replace("BEGIN CERT", "BEGIN X509 CERT").replace("END CERT", "END X509 CERT"),
        |pem| format!("\u{feff}{pem}"),
        |pem| pem.replace('\n', "\r\n"),
        |pem| pem.replace('\n', "\t \n"),
        |pem| pem.trim_end().to_owned(),
        |pem| format!("Bag Attributes\n    friendlyName: x\n{pem}\nmore\n"),
        |pem| pem,
    ];
    for name in ["chain.pem", "text.pem", "trusted.pem"] {
        for (number, form) in forms.iter().enumerate() {
            std::fs::write(folder.file("formed.pem"), form(read(name))).unwrap();
            std::fs::write(folder.file("formed.key"), form(read("key.pem"))).unwrap();
            std::fs::write(folder.file("formed-ca.pem"), form(world.authority.pem().to_owned())).unwrap();
            let authorities = folder.file("formed-ca.pem");
            let options = pair(folder, "formed.pem", "formed.key")
                + &format!(",ssl_verify_mode=2,ssl_ca_cert={}", authorities.display());
            let server = Launch::new(&["-Z", "-o", &options]).serve();
            let words = "-CAfile ca.pem -cert chain.pem -key key.pem";
            assert!(openssl_is_served(folder, server.address, words), "{name} in form {number}");
        }
    }
    // The oldest version of certificates says neither its version nor what it may be used for.
    openssl(folder, "req -new -key key.pem -subj /CN=localhost -out request.pem");
    openssl(folder, "x509 -req -in request.pem -signkey key.pem -out oldest.pem");
    let server = Launch::new(&["-Z", "-o", &pair(folder, "oldest.pem", "key.pem")]).serve();
    assert!(openssl_is_served(folder, server.address, "-CAfile oldest.pem"));
}

#[test]
fn certificates_of_p_521_are_verified_and_shown() {
    let folder = Folder::new();
    self_signed(&folder, "ca", P521);
    self_signed(&folder, "stranger", P521);
    for hash in ["sha256", "sha384", "sha512"] {
        openssl(
            &folder,
            "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-521 -keyout a.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -out a.csr",
        );
        let signed =
            "x509 -req -in a.csr -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy -out a.crt";
        openssl(&folder, &format!("{signed} -{hash}"));
        let file = |name: &str| folder.file(name).display().to_string();
        let options =
            pair(&folder, "a.crt", "a.key") + &format!(",ssl_verify_mode=2,ssl_ca_cert={}", file("ca.crt"));
        let server = Launch::new(&["-Z", "-o", &options]).serve();
        for version in ["-tls1_2", "-tls1_3"] {
            let shows = |name: &str| {
                let words = format!("{version} -CAfile ca.crt -cert {name}.crt -key {name}.key");
                openssl_is_served(&folder, server.address, &words)
            };
            assert!(shows("a") && !shows("stranger"), "{hash} {version}");
        }
        // A client that is this program, as proxies are.
        let target = format!("localhost:{}", server.address.port());
        let check = |authorities: &str| {
            let shown = ["--pem-cert-path", &file("a.crt"), "--pem-key-path", &file("a.key")];
            let verified = ["healthcheck", &target, "-Z", "--pem-ca-path", &file(authorities)];
            Launch::bare(&[&verified[..], &shown].concat()).exit()
        };
        let exit = check("ca.crt");
        assert_eq!((exit.code(), &*exit.stderr), (Some(0), ""), "{hash}");
        assert_eq!(check("stranger.crt").code(), Some(1), "{hash}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason_and_the_remedy() {
    let folder = Folder::new();
    for (name, kind) in [("a", "rsa:2048"), ("b", "rsa:2048"), ("c", P521)] {
        self_signed(&folder, name, kind);
    }
    openssl(&folder, "genrsa -out short.key 1024");
    openssl(&folder, "genpkey -algorithm ED448 -out ed448.key");
    openssl(&folder, "genpkey -algorithm RSA-PSS -out pss.key");
    openssl(&folder, "ecparam -name secp256k1 -genkey -out koblitz.key");
    openssl(&folder, "ecparam -name prime256v1 -genkey -param_enc explicit -out explicit.key");
    openssl(&folder, "rsa -in a.key -aes256 -passout pass:x -traditional -out traditional.key");
    openssl(&folder, "pkcs8 -topk8 -in a.key -passout pass:x -out encrypted.key");
    openssl(&folder, "pkey -in a.key -pubout -out public.key");
    openssl(&folder, "pkey -in a.key -outform DER -out der.key");
    openssl(&folder, "pkcs12 -export -in a.crt -inkey a.key -passout pass: -out p12.key");
    let pem = std::fs::read_to_string(folder.file("a.key")).unwrap();
    std::fs::write(folder.file("cut.key"), &pem[..500]).unwrap();
    std::fs::write(folder.file("line.key"), pem.replace('\n', "")).unwrap();
    let certificates =
        ["c.crt", "a.crt"].map(|name| std::fs::read_to_string(folder.file(name)).unwrap()).concat();
    std::fs::write(folder.file("order.crt"), certificates).unwrap();
    let kinds =
        "cannot be used: make one of RSA with 2048, 3072 or 4096 bits, P-256, P-384, P-521 or Ed25519";
    let passphrase = "the key has a passphrase, and the server does not ask for it: `openssl pkey -in FILE";
    let foreign = "the key is of another certificate: ";
    for (key, said) in [
        ("short.key", format!("an RSA key of 1024 bits {kinds}")),
        ("ed448.key", format!("an Ed448 key {kinds}")),
        ("pss.key", format!("an RSA-PSS key {kinds}")),
        ("koblitz.key", format!("a secp256k1 key {kinds}")),
        ("explicit.key", format!("a key that writes its curve out instead of naming it {kinds}")),
        ("traditional.key", passphrase.to_owned()),
        ("encrypted.key", passphrase.to_owned()),
        ("public.key", "no private key is in it: there is only PUBLIC KEY: ".to_owned()),
        ("der.key", "no private key is in it: it is DER and not PEM: `openssl pkey -inform DER".to_owned()),
        ("p12.key", "no private key is in it: it is PKCS#12 and not PEM: `openssl pkcs12".to_owned()),
        ("cut.key", "not PEM: PRIVATE KEY has no `-----END PRIVATE KEY-----` after it: ".to_owned()),
        ("line.key", "not PEM: line 1 is not a `-----BEGIN ...-----` alone: ".to_owned()),
        ("b.key", foreign.to_owned()),
        ("c.key", foreign.to_owned()),
    ] {
        let path = folder.file(key);
        let exit = Launch::new(&["-Z", "-o", &pair(&folder, "a.crt", key)]).exit();
        assert_eq!(exit.code(), Some(64), "{key}: {}", exit.stderr);
        let said_by_cache = format!("-o ssl_key={}: {said}", path.display());
        assert!(exit.stderr.contains(&said_by_cache), "{key}: {}", exit.stderr);
        // A client that is this program, as proxies are.
        let (chain, path) = (folder.file("a.crt"), path.display().to_string());
        let words = ["healthcheck", "127.0.0.1:1", "-Z", "--pem-cert-path", chain.to_str().unwrap()];
        let exit = Launch::bare(&[&words[..], &["--pem-key-path", &path]].concat()).exit();
        assert!(exit.stderr.contains(&format!("--pem-key-path {path}: {said}")), "{key}: {}", exit.stderr);
    }
    let exit = Launch::new(&["-Z", "-o", &pair(&folder, "order.crt", "a.key")]).exit();
    let said = format!(
        "ssl_chain_cert={}: the key is of certificate 2 in the file",
        folder.file("order.crt").display()
    );
    assert!(exit.code() == Some(64) && exit.stderr.contains(&said), "{}", exit.stderr);
    let exit = Launch::new(&["-Z", "-o", &(pair(&folder, "a.crt", "a.key") + ",ssl_keyformat=2")]).exit();
    assert!(exit.code() == Some(64) && exit.stderr.contains("leave ssl_keyformat out"), "{}", exit.stderr);
}
