//! Frames: golden bytes, compression, and hostile bytes.

use super::*;
use bigpeer_types::Lsn;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

fn push(bytes: usize) -> pb::PeerMessage {
    let transaction = Bytes::from(vec![7; bytes]);
    pb::Push { transactions: vec![pb::PushedTransaction { seq: 1, transaction, ..Default::default() }] }.into()
}

#[test]
fn the_bytes_of_messages_are_frozen() {
    let frames: [(Framed<Bytes>, &str); 4] = [
        (
            encode_frame(
                &pb::PeerMessage::from(pb::Hello {
                    versions: vec![1],
                    site: 0x0102,
                    access_token: "t".to_owned(),
                    last_lsn: Some(Lsn::new(5, 0).into()),
                    last_seq: 3,
                    acknowledged_seq: 2,
                    compressions: vec![pb::Compression::Zstd.into()],
                    credit: 300,
                    device: None,
                    tells_held: false,
                }),
                pb::Compression::None,
            ),
            "000a1d0a01011102010000000000001a01742a0208053003380242010148ac02",
        ),
        (encode_frame(&push(2), pb::Compression::None), "0012080a06080112020707"),
        (
            encode_frame(
                &pb::GatewayMessage::from(pb::Accepted { seq: 9, lsn: Some(Lsn::new(300, 1).into()) }),
                pb::Compression::None,
            ),
            "0012090809120508ac021001",
        ),
        (
            encode_frame(
                &pb::GatewayMessage::from(pb::Close::new(pb::CloseCode::CloseGoingAway, "bye")),
                pb::Compression::None,
            ),
            "007a0708021203627965",
        ),
    ];
    for (frame, golden) in frames {
        let hex: String = frame.message.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
        assert_eq!(frame.bytes, frame.message.len());
    }
}

#[test]
fn bytes_fields_are_slices_of_the_frame() {
    let frame = encode_frame(&push(5000), pb::Compression::None).message;
    let range = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
    let pb::FromPeer::Push(push) = decode_peer_frame(frame, MAX).unwrap().message else { panic!("not a push") };
    assert!(range.contains(&(push.transactions[0].transaction.as_ptr() as usize)), "copied");
}

#[test]
fn large_frames_are_compressed_where_agreed_and_read_either_way() {
    let raw = encode_frame(&push(5000), pb::Compression::None);
    let packed = encode_frame(&push(5000), pb::Compression::Zstd);
    assert!(packed.message.len() < 100 && packed.bytes == raw.bytes);
    assert_eq!(decode_peer_frame(packed.message, MAX), decode_peer_frame(raw.message, MAX));
    let small = encode_frame(&push(10), pb::Compression::Zstd);
    assert_eq!(small.message[0], RAW);
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let bomb = encode_frame(&push(2 * MAX), pb::Compression::Zstd).message;
    assert!(bomb.len() < 1000);
    assert!(matches!(decode_peer_frame(bomb, MAX), Err(FrameError::TooLarge { max: MAX, .. })));
    // One that lies about its size, and one that does not say it.
    let mut packed = zstd::bulk::compress(&[0; 5000], 1).unwrap();
    packed.truncate(packed.len() - 3);
    assert_eq!(decompressed(&packed, MAX), Err(FrameError::Compressed));
    let stream = zstd::stream::encode_all(&[0_u8; 5000][..], 1).unwrap();
    assert_eq!(decompressed(&stream, MAX), Err(FrameError::Compressed));
}

#[test]
fn frames_that_are_none_are_told_apart() {
    let decode = |bytes: &'static [u8]| decode_peer_frame(Bytes::from_static(bytes), MAX).unwrap_err();
    assert_eq!(decode(&[]), FrameError::Empty);
    assert_eq!(decode(&[2]), FrameError::UnknownFlags(2));
    assert_eq!(decode(&[0]), FrameError::NoMessage);
    // Field 200: of a later version.
    assert_eq!(decode(&[0, 0xc2, 0x0c, 0x00]), FrameError::NoMessage);
    assert!(matches!(decode(&[0, 0x12, 0x05, 0x0a]), FrameError::Malformed(_)));
    let large = Bytes::from(vec![0; MAX + 1]);
    assert!(matches!(decode_peer_frame(large, MAX), Err(FrameError::TooLarge { .. })));
}

#[test]
fn a_swarm_of_empty_fields_is_refused_before_it_takes_memory() {
    // Two bytes each on the wire, a hundred in memory.
    let fields: Vec<u8> = [0x0a, 0x00].repeat(MAX_FRAME_FIELDS + 1);
    let mut inside = BytesMut::new();
    inside.put_u8(RAW);
    inside.put_u8(0x12);
    prost::encoding::encode_varint(fields.len() as u64, &mut inside);
    inside.extend_from_slice(&fields);
    assert_eq!(decode_peer_frame(inside.freeze(), MAX), Err(FrameError::TooManyFields));
    let mut outside = vec![RAW];
    outside.extend([0x12, 0x00].repeat(MAX_FRAME_FIELDS + 1));
    assert_eq!(decode_peer_frame(outside.into(), MAX), Err(FrameError::TooManyFields));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_peer_frame(bytes.clone().into(), MAX);
        let _ = decode_gateway_frame(bytes.into(), MAX);
    }

    #[test]
    fn damaged_frames_are_a_message_or_an_error(at in 0_usize..400, with: u8, zstd: bool, length in 0_usize..400) {
        let compression = if zstd { pb::Compression::Zstd } else { pb::Compression::None };
        let mut bytes = encode_frame(&push(2000), compression).message.to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        let _ = decode_peer_frame(bytes.clone().into(), MAX);
        bytes.truncate(length);
        let _ = decode_peer_frame(bytes.into(), MAX);
    }
}
