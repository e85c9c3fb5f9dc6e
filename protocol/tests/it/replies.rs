//! The replies to meta requests, from the request as it was sent to the line that answers it.

use corecached_protocol::meta::{MetaCode, MetaDebug, MetaItem, encode_debug, encode_header, is_hidden};
use corecached_protocol::{Command, Limits, Meta, Parsed, Parser, line};

const ITEM: MetaItem = MetaItem {
    client_flags: 7,
    cas: 22,
    size: 3,
    ttl_s: None,
    hit_before: true,
    last_access_s: 9,
    win: false,
    stale: false,
    token_sent: false,
    binary_key: false,
};

fn parse(request: &str) -> Meta<'_> {
    match Parser::new().parse(request.as_bytes(), &Limits::default()) {
        Ok(Parsed::Complete { value: Command::Meta(meta), .. }) => meta,
        other => panic!("{request:?} was read as {other:?}"),
    }
}

#[track_caller]
fn check(request: &str, code: MetaCode, item: MetaItem, expected: &str) {
    let request = format!("{request}\r\n");
    let mut out = b"before ".to_vec();
    let value_len = (code == MetaCode::Value).then_some(item.size);
    encode_header(&mut out, code, value_len, &parse(&request), &item);
    assert_eq!(String::from_utf8(out).unwrap(), format!("before {expected}\r\n"), "{request:?}");
}

#[test]
fn flags_come_back_in_the_order_they_were_asked_for() {
    check("mg k", MetaCode::Done, ITEM, "HD");
    check("mg k v", MetaCode::Value, ITEM, "VA 3");
    check("mg k v c f h l s t k Oabc q", MetaCode::Value, ITEM, "VA 3 c22 f7 h1 l9 s3 t-1 kk Oabc");
    check("mg k s f v t k", MetaCode::Value, ITEM, "VA 3 s3 f7 t-1 kk");
    check("mg k t", MetaCode::Done, MetaItem { ttl_s: Some(30), ..ITEM }, "HD t30");
    check("mg k O k", MetaCode::Done, ITEM, "HD O kk");
    check("mg k  u  T30  h L P ", MetaCode::Done, MetaItem { hit_before: false, ..ITEM }, "HD h0");
}

#[test]
fn each_verb_returns_its_own_flags_only() {
    let all = "c f h l s t k O1";
    check(&format!("mg k {all}"), MetaCode::Done, ITEM, "HD c22 f7 h1 l9 s3 t-1 kk O1");
    check(&format!("ms k 3 {all}"), MetaCode::Done, ITEM, "HD c22 s3 kk O1");
    check(&format!("md k {all}"), MetaCode::Done, ITEM, "HD kk O1");
    check(&format!("ma k {all}"), MetaCode::Done, ITEM, "HD c22 t-1 kk O1");
    check(&format!("ma k v {all}"), MetaCode::Value, MetaItem { size: 2, ..ITEM }, "VA 2 c22 t-1 kk O1");
}

#[test]
fn a_failure_returns_key_and_opaque_and_ms_a_cas_of_zero() {
    let all = "c f h l s t k O1";
    check(&format!("mg k {all}"), MetaCode::Miss, ITEM, "EN kk O1");
    check(&format!("md k {all}"), MetaCode::NotFound, ITEM, "NF kk O1");
    check(&format!("md k {all}"), MetaCode::Exists, ITEM, "EX kk O1");
    check(&format!("ma k {all}"), MetaCode::NotStored, ITEM, "NS kk O1");
    check(&format!("ms k 3 {all}"), MetaCode::NotStored, ITEM, "NS c0 s3 kk O1");
    check(&format!("ms k 3 {all}"), MetaCode::Exists, ITEM, "EX c0 s3 kk O1");
    check("mg k c f", MetaCode::Miss, ITEM, "EN");
}

#[test]
fn base64_keys_come_back_as_base64_and_say_so() {
    check("mg Zm9v s f k Oabc b", MetaCode::Miss, ITEM, "EN kZm9v b Oabc");
    check("ms Zm9v 3 b k c", MetaCode::Done, ITEM, "HD kZm9v b c22");
    check("mg Zm9v b f", MetaCode::Done, ITEM, "HD f7");
}

#[test]
fn a_key_that_was_found_comes_back_in_the_form_in_which_it_was_stored() {
    let binary = MetaItem { binary_key: true, ..ITEM };
    check("mg foo f k O1", MetaCode::Done, binary, "HD f7 kZm9v b O1");
    check("mg Zm9v b k v", MetaCode::Value, binary, "VA 3 kZm9v b");
    check("mg Zm9v b k v", MetaCode::Value, ITEM, "VA 3 kfoo");
    check("mg foo k", MetaCode::Miss, binary, "EN kfoo");
    for verb in ["ms foo 3", "md foo", "ma foo"] {
        check(&format!("{verb} k"), MetaCode::Done, binary, "HD kfoo");
    }
    // Without the last bits, which stand for no byte, the base64 is that of the key.
    check("mg Zm9vYh== b k", MetaCode::Done, binary, "HD kZm9vYg== b");
    // A key with a blank and a line end, stored by the binary protocol.
    check("mg YSBiDQo= b k", MetaCode::Done, ITEM, "HD kYSBiDQo= b");
}

#[test]
fn the_state_of_an_item_follows_its_flags() {
    let ttl = MetaItem { ttl_s: Some(30), size: 5, stale: true, ..ITEM };
    check("mg k t v", MetaCode::Value, MetaItem { win: true, ..ttl }, "VA 5 t30 X W");
    check("mg k t v", MetaCode::Value, MetaItem { token_sent: true, ..ttl }, "VA 5 t30 Z X");
    check("mg k", MetaCode::Done, MetaItem { win: true, ..ITEM }, "HD W");
    check("mg k", MetaCode::Done, MetaItem { token_sent: true, stale: true, win: true, ..ITEM }, "HD Z X W");
    check("mg k", MetaCode::Miss, MetaItem { win: true, ..ITEM }, "EN");
    check("ms k 3", MetaCode::Done, MetaItem { stale: true, ..ITEM }, "HD");
}

#[test]
fn without_flags_a_reply_is_its_constant() {
    for (code, constant) in [(MetaCode::Done, line::META_DONE), (MetaCode::Miss, line::META_MISS)] {
        let mut out = Vec::new();
        encode_header(&mut out, code, None, &parse("mg k v\r\n"), &ITEM);
        assert_eq!(out, constant);
    }
}

#[test]
fn quiet_hides_what_was_expected_and_nothing_else() {
    use MetaCode::{Done, Exists, Miss, NotFound, NotStored, Value};
    for (request, hidden) in [
        ("mg k q\r\n", &[Miss][..]),
        ("ms k 3 q\r\n", &[Value, Done]),
        ("md k q\r\n", &[Value, Done]),
        ("ma k q v\r\n", &[Value, Done]),
        ("me k q\r\n", &[]),
        ("mg k v\r\n", &[]),
        ("ms k 3\r\n", &[]),
    ] {
        for code in [Value, Done, Miss, NotStored, Exists, NotFound] {
            assert_eq!(is_hidden(&parse(request), code), hidden.contains(&code), "{request:?} {code:?}");
        }
    }
}

#[test]
fn debug_shows_the_key_as_stored_and_the_life_of_the_item() {
    let mut out = Vec::new();
    let item = MetaDebug { last_access_s: 4, cas: 44, class: 1, size: 63, ..MetaDebug::default() };
    encode_debug(&mut out, &parse("me k\r\n"), &item);
    encode_debug(&mut out, &parse("me aw== b\r\n"), &item);
    let binary = MetaDebug { ttl_s: Some(30), fetched: true, binary_key: true, ..item };
    encode_debug(&mut out, &parse("me k\r\n"), &binary);
    encode_debug(&mut out, &parse("me CiA= b\r\n"), &item);
    let expected = "ME k exp=-1 la=4 cas=44 fetch=no cls=1 size=63\r\n\
                    ME k exp=-1 la=4 cas=44 fetch=no cls=1 size=63\r\n\
                    ME aw== exp=30 la=4 cas=44 fetch=yes cls=1 size=63\r\n\
                    ME CiA= exp=-1 la=4 cas=44 fetch=no cls=1 size=63\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
