//! Packets of the binary protocol.

use super::Client;

/// Opcodes by name.
pub mod opcode {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const STAT: u8 = 0x10;
}

/// A packet, request or reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The operation.
    pub opcode: u8,
    /// The status of a reply: 0 is success. Requests have 0.
    pub status: u16,
    /// A number of the client, which the reply repeats.
    pub opaque: u32,
    /// The cas unique of the item; 0 for none.
    pub cas: u64,
    /// The fields that belong to the opcode.
    pub extras: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Packet {
    /// A request without extras and value.
    pub fn new(opcode: u8, key: &[u8]) -> Self {
        Self { opcode, key: key.to_vec(), ..Self::default() }
    }

    /// A storage request such as `SET`, with this value, flags of 0 and no exptime.
    pub fn store(opcode: u8, key: &[u8], value: &[u8]) -> Self {
        Self { extras: vec![0; 8], value: value.to_vec(), ..Self::new(opcode, key) }
    }

    /// The bytes of the packet as a request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, self.opcode];
        bytes.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[self.extras.len() as u8, 0, 0, 0]);
        let body = self.extras.len() + self.key.len() + self.value.len();
        bytes.extend_from_slice(&(body as u32).to_be_bytes());
        bytes.extend_from_slice(&self.opaque.to_be_bytes());
        bytes.extend_from_slice(&self.cas.to_be_bytes());
        for part in [&self.extras, &self.key, &self.value] {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Parses the reply at the front of `bytes`; also returns its length. `None` when it is incomplete.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..24)?;
        assert_eq!(header[0], 0x81, "no reply: {}", super::shorten(bytes));
        let number = |from: usize, to: usize| {
            header[from..to].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let (key, extras, body) = (number(2, 4) as usize, header[4] as usize, number(8, 12) as usize);
        let rest = bytes.get(24..24 + body)?;
        let packet = Self {
            opcode: header[1],
            status: number(6, 8) as u16,
            opaque: number(12, 16) as u32,
            cas: number(16, 24),
            extras: rest[..extras].to_vec(),
            key: rest[extras..extras + key].to_vec(),
            value: rest[extras + key..].to_vec(),
        };
        Some((packet, 24 + body))
    }

    /// Reads the next reply that `client` receives.
    #[track_caller]
    pub fn read(client: &mut Client) -> Self {
        let mut bytes = client.read(24);
        let body = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
        bytes.extend(client.read(body as usize));
        Self::parse(&bytes).expect("it is all there").0
    }

    /// Sends the packet and reads the reply.
    #[track_caller]
    pub fn ask(&self, client: &mut Client) -> Self {
        client.send(self.bytes());
        Self::read(client)
    }
}
