//! The first words of a TLS client, byte by byte, so that a test can offer what no library would.

/// What a client offers (RFC 8446, section 4.1.2).
pub(crate) struct TlsHello {
    /// Whether it speaks TLS 1.3, or only 1.2.
    pub(crate) speaks_1_3: bool,
    /// Whether it guesses which key the server understands.
    pub(crate) has_key_share: bool,
}

impl Default for TlsHello {
    fn default() -> Self {
        Self { speaks_1_3: true, has_key_share: true }
    }
}

impl TlsHello {
    /// The random of a server's hello that asks for another one of the client (section 4.1.3).
    pub(crate) const HELLO_AGAIN: [u8; 32] = [
        0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8,
        0x91, 0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8,
        0x33, 0x9C,
    ];

    /// One record with the whole hello.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        const X25519: [u8; 2] = [0x00, 0x1D];

        // ECDSA and RSA with what each version can do.
        let signatures = [0x04, 0x03, 0x08, 0x04, 0x04, 0x01];
        let mut extensions =
            vec![extension(0x0A, &sized(&X25519)), extension(0x0D, &sized(&signatures))];
        if self.speaks_1_3 {
            extensions.push(extension(0x2B, &[2, 0x03, 0x04]));
            let share = [&X25519[..], &sized(&[9; 32])].concat();
            let shares = if self.has_key_share { share } else { Vec::new() };
            extensions.push(extension(0x33, &sized(&shares)));
        }
        // AES with 128 bits: for TLS 1.3, and for 1.2 with either kind of certificate.
        let suites = [0x13, 0x01, 0xC0, 0x2B, 0xC0, 0x2F];
        let version = [0x03, 0x03];
        let (random, no_session, no_compression) = ([7; 32], [0], [1, 0]);
        let said = [
            &version[..],
            &random,
            &no_session,
            &sized(&suites),
            &no_compression,
            &sized(&extensions.concat()),
        ]
        .concat();
        let message = [&[0x01, 0][..], &sized(&said)].concat();
        [&[0x16, 0x03, 0x01][..], &sized(&message)].concat()
    }
}

/// With its length before it, in two bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0, kind][..], &sized(content)].concat()
}
