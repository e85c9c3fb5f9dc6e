//! Requests kept, changed and sent again.

use corecached_protocol::{Limits, Parsed, Parser};

use super::*;

fn request(line: &str, data: &'static [u8]) -> OwnedRequest {
    let input = format!("{line}\r\n");
    match Parser::new().parse(input.as_bytes(), &Limits::default()) {
        Ok(Parsed::Complete { value, .. }) => OwnedRequest::new(&value, Bytes::from_static(data)).unwrap(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_command_comes_back_as_it_went_in_but_wants_a_reply() {
    for (line, data) in [
        ("get k", &b""[..]),
        ("gats 7 k", b""),
        ("set k 5 60 3", b"abc"),
        ("cas k 5 60 3 99", b"abc"),
        ("delete k", b""),
        ("decr k 4", b""),
        ("touch k 9", b""),
        ("mg k v t O12 T30", b""),
        ("ms Zm9v 3 b MA T9", b"abc"),
    ] {
        let input = format!("{line}\r\n");
        let Ok(Parsed::Complete { value, .. }) = Parser::new().parse(input.as_bytes(), &Limits::default())
        else {
            panic!("{line}");
        };
        let owned = OwnedRequest::new(&value, Bytes::copy_from_slice(data)).unwrap();
        assert_eq!(owned.command(), value, "{line}");
        assert_eq!(owned.data(), data);
    }
    for (quiet, plain) in [("delete k noreply", "delete k"), ("mg k q v O1", "mg k v O1")] {
        assert_eq!(request(quiet, b""), request(plain, b""));
    }
}

#[test]
fn a_command_about_no_key_is_none() {
    assert_eq!(OwnedRequest::new(&Command::Version, Bytes::new()), None);
    assert_eq!(OwnedRequest::new(&Command::MetaNoop, Bytes::new()), None);
}

#[test]
fn a_base64_key_is_routed_decoded_and_sent_encoded() {
    let owned = request("mg Zm9v b v", b"");
    assert_eq!(owned.key(), "foo");
    let other = owned.with_key("a b".into()).unwrap();
    assert_eq!(other.command().key().unwrap(), b"YSBi");
    assert_eq!(encode_base64(b"f"), "Zg==");
    assert_eq!(encode_base64(b"fo"), "Zm8=");
    assert_eq!(encode_base64(b"foob"), "Zm9vYg==");
}

#[test]
fn keys_that_no_line_can_hold_are_refused() {
    let owned = request("get k", b"");
    for key in [&b""[..], b"a b", b"a\r\n", b"\x7f", &[b'k'; 251]] {
        assert_eq!(owned.with_key(Bytes::copy_from_slice(key)), Err(BadKey));
    }
    assert_eq!(owned.with_key(Bytes::from_static(&[b'k'; 250])).unwrap().key().len(), 250);
    let base64 = request("mg Zm9v b", b"");
    assert_eq!(base64.with_key(Bytes::from_static(&[b'k'; 200])), Err(BadKey)); // 268 in base64
}

#[test]
fn an_exptime_is_changed_only_where_there_is_one() {
    for (line, before, after) in [
        ("set k 0 0 1", Some(0), "set k 0 7 1"),
        ("append k 0 5 1", None, "append k 0 5 1"),
        ("touch k 5", Some(5), "touch k 7"),
        ("get k", None, "get k"),
        ("gat 5 k", Some(5), "gat 7 k"),
        ("mg k T5 v", Some(5), "mg k v T7"),
        ("mg k v", None, "mg k v"),
        ("ms k 1", Some(0), "ms k 1 T7"),
        ("delete k", None, "delete k"),
    ] {
        let owned = request(line, b"x");
        assert_eq!(owned.exptime(), before.map(Exptime), "{line}");
        assert_eq!(owned.with_exptime(Exptime(7)), request(after, b"x"), "{line}");
    }
}

#[test]
fn a_key_in_base64_is_classic_when_what_it_stands_for_is() {
    for (line, classic) in [("get k", true), ("mg Zm9v b", true), ("mg YSBi b", false)] {
        assert_eq!(request(line, b"").has_classic_key(), classic, "{line}");
    }
}

#[test]
fn a_value_and_meta_flags_are_changed_only_where_there_are_such() {
    for (line, after, value) in [
        ("set k 5 60 3", "set k 9 60 2", &b"xy"[..]),
        ("ms k 3 F5 T7", "ms k 2 T7 F9", b"xy"),
        ("ms k 3", "ms k 2 F9", b"xy"),
        ("get k", "get k", b"abc"),
        ("mg k v", "mg k v", b"abc"),
    ] {
        let changed = request(line, b"abc").with_value(9, "xy".into());
        let expected = request(after, value);
        assert_eq!((changed.command(), changed.data()), (expected.command(), expected.data()), "{line}");
    }
    assert_eq!(request("mg k v", b"").with_meta_flags(b"fs"), request("mg k v f s", b""));
    assert_eq!(request("mg k", b"").with_meta_flags(b"f"), request("mg k f", b""));
    assert_eq!(request("get k", b"").with_meta_flags(b"f"), request("get k", b""));
    assert_eq!(request("gats 7 k", b"").get_and_touch(Exptime(9)), request("gat 9 k", b""));
    assert_eq!(request("get k", b"").touch(Exptime(9)), request("touch k 9", b""));
}

#[test]
fn a_routing_prefix_is_set_apart_and_joined_again() {
    let owned = request("get /a/b/key", b"");
    let split = owned.split_prefix(5).unwrap();
    assert_eq!((split.prefix().as_ref(), split.key().as_ref()), (&b"/a/b/"[..], &b"key"[..]));
    assert_eq!(split.join_prefix().unwrap(), owned);
    assert_eq!(owned.split_prefix(8), Err(BadKey));
}
