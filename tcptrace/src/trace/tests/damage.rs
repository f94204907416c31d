//! Readers report what is missing from a trace: where, by cause, and the number of events if known.

use std::fs;

use zerocopy::byteorder::little_endian::U32;

use super::*;
use crate::engine::lifecycle::Config;
use crate::model::criteria::Criteria;
use crate::model::event::Event;
use crate::model::row::{Loss, Row};
use crate::model::stream::{Item, Origin, Summary};
use crate::replay::{Recordings, Span};
use crate::trace::block::{LONGEST, LONGEST_READ};

/// The rows and the summary of files.
pub(super) fn told(files: &[&[u8]]) -> (Vec<Row>, Summary) {
    let names = ["a.tct", "b.tct", "c.tct"].map(Box::from);
    tell(Recordings::of(names.into_iter().zip(files.iter().copied()).collect()).expect("traces"))
}

/// The rows of a file with one block for each list of items.
pub(super) fn whole_rows(blocks: &[Vec<Item>]) -> Vec<Row> {
    told(&[&file(blocks)]).0
}

fn tell<R: Read>(recordings: Recordings<R>) -> (Vec<Row>, Summary) {
    let mut rows = Vec::new();
    let mut keep = |row: &Row, _: &Origin| {
        rows.push(row.clone());
        Ok(())
    };
    let told: io::Result<Summary> =
        recordings.tell(Config::default(), &Criteria::default(), Span::default(), true, &mut keep);
    let summary = told.expect("bytes can be read");
    (rows, summary)
}

/// The counts of the rows that report damage.
fn losses(rows: &[Row]) -> Vec<Option<u64>> {
    let damage = |row: &Row| match row {
        Row::Loss(Loss { cause: Cause::Damage, count, .. }) => Some(*count),
        _ => None,
    };
    rows.iter().filter_map(damage).collect()
}

/// How many events damage cost, and whether that is a lower bound.
fn lost(summary: &Summary) -> Option<(u64, bool)> {
    assert!(summary.lost.len() <= 1, "{summary:?}");
    summary.lost.first().map(|lost| {
        assert_eq!(lost.cause, Cause::Damage);
        (lost.events, lost.at_least)
    })
}

/// The blocks of [`sample`], two events and passing time each, and one more block.
fn blocks() -> Vec<Vec<u8>> {
    let mut all = sample();
    all.push(vec![Item::Event(Event::Destroyed { at: 9_000_000, id: Id::Cookie(1), shut: None })]);
    let bytes = file(&all);
    let ends = ends(&bytes);
    ends.iter().scan(0, |begin, end| Some(bytes[std::mem::replace(begin, *end)..*end].to_vec())).collect()
}

#[derive(Clone, Copy, Debug)]
enum Done {
    /// Flip a bit of its data.
    Flip,
    /// Flip a bit of its head.
    Behead,
    /// Remove it.
    Remove,
    /// Remove its second half and the rest of the file.
    Cut,
    /// Likewise, but leave only a few bytes of it.
    CutShort,
    /// Claim that it is longer than any block.
    Lengthen,
    /// Insert other bytes before it.
    Precede,
}

fn damaged(done: &[(usize, Done)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, mut block) in blocks().into_iter().enumerate() {
        let done = done.iter().find(|(place, _)| *place == number).map(|(_, done)| *done);
        let head_len = FRAME_HEADER + size_of::<BlockHead>();
        match done {
            None => {}
            Some(Done::Flip) => block[head_len + 12] ^= 1,
            Some(Done::Behead) => block[FRAME_HEADER + 20] ^= 1,
            Some(Done::Remove) => block.clear(),
            Some(Done::Cut) => block.truncate(head_len + 12),
            Some(Done::CutShort) => block.truncate(6),
            Some(Done::Lengthen) => {
                let mut head = BlockHead::parse(&block[FRAME_HEADER..head_len]).expect("a head");
                head.raw_len = U32::new(64 << 20);
                block[..head_len].copy_from_slice(&head.frame());
            }
            Some(Done::Precede) => drop(block.splice(0..0, *b"something else")),
        }
        bytes.extend(block);
        if matches!(done, Some(Done::Cut | Done::CutShort)) {
            break;
        }
    }
    bytes
}

#[rstest]
#[case::nothing(&[], None)]
#[case::in_the_middle(&[(1, Done::Flip)], Some((2, false)))]
#[case::at_the_beginning(&[(0, Done::Flip)], Some((2, false)))]
#[case::at_the_end(&[(3, Done::Flip)], Some((1, false)))]
#[case::cut_within_a_block(&[(2, Done::Cut)], Some((2, false)))]
#[case::cut_within_a_head(&[(2, Done::CutShort)], Some((0, true)))]
#[case::two_in_a_row(&[(1, Done::Flip), (2, Done::Flip)], Some((4, false)))]
#[case::two_apart(&[(1, Done::Flip), (3, Done::Flip)], Some((3, false)))]
#[case::a_head(&[(1, Done::Behead)], Some((0, true)))]
#[case::a_head_and_the_data_of_another_one(&[(1, Done::Flip), (2, Done::Behead)], Some((2, true)))]
#[case::one_is_not_there(&[(1, Done::Remove)], Some((0, true)))]
#[case::one_is_not_there_and_one_is_damaged(&[(1, Done::Flip), (2, Done::Remove)], Some((2, true)))]
#[case::a_claim_too_long(&[(1, Done::Lengthen)], Some((2, false)))]
#[case::bytes_that_belong_to_nothing(&[(1, Done::Precede)], None)]
fn damage_is_a_cause_of_losses(#[case] done: &[(usize, Done)], #[case] expected: Option<(u64, bool)>) {
    let (rows, summary) = told(&[&damaged(done)]);
    assert_eq!(lost(&summary), expected, "{summary:?}");
    let is_cut = done.iter().any(|(_, done)| matches!(done, Done::Cut));
    if let Some((events, false)) = expected.filter(|_| !is_cut) {
        assert_eq!(summary.events + events, 7, "lost and read events make up all events");
    }
    assert_eq!(summary.damage.is_empty(), done.is_empty(), "{summary:?}");
    let losses = losses(&rows);
    let (sum, at_least) = (losses.iter().flatten().sum::<u64>(), losses.contains(&None));
    assert_eq!((!losses.is_empty()).then_some((sum, at_least)), expected, "the rows report the same: {rows:?}");
}

/// The rows of a whole file.
fn whole() -> Vec<Row> {
    told(&[&blocks().concat()]).0
}

#[rstest]
#[case::side_by_side(&[0..2, 2..4])]
#[case::overlapping(&[0..3, 1..4])]
#[case::in_any_order(&[1..4, 0..3])]
#[case::one_within_the_other(&[0..4, 1..2])]
#[case::the_same_twice(&[0..4, 0..4])]
fn the_common_part_of_two_files_is_read_once(#[case] ranges: &[std::ops::Range<usize>]) {
    let files: Vec<_> = ranges.iter().map(|range| blocks()[range.clone()].concat()).collect();
    let (rows, summary) = told(&files.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(rows, whole());
    assert_eq!((&summary.lost[..], &summary.damage[..]), (&[][..], &[][..]));
}

#[test]
fn what_is_cut_off_in_one_file_and_whole_in_another_is_not_lost() {
    let (first, second) = (damaged(&[(2, Done::Cut)]), blocks()[1..].concat());
    let (rows, summary) = told(&[&first, &second]);
    assert_eq!(rows, whole());
    assert_eq!(lost(&summary), None);
    assert_eq!(summary.damage.len(), 1, "{summary:?}");
}

#[test]
fn a_block_of_another_recording_is_not_taken_for_one_that_was_read() {
    let mut encoder = Encoder::new([9; 16]).expect("memory");
    sample()[0].iter().for_each(|item| encoder.push(item).expect("it fits"));
    let other = encoder.finish(0).expect("it can be packed");
    let (rows, summary) = told(&[&[blocks().concat(), other].concat()]);
    assert_eq!(rows, whole());
    assert!(matches!(&summary.damage[..], [place] if place.contains("another recording")), "{summary:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_damage_beside_one_that_can() {
    let (rows, summary) = told(&[b"no trace at all, however long it may be", &blocks().concat(), b""]);
    assert_eq!(rows, whole());
    assert!(
        matches!(&summary.damage[..], [place] if place.starts_with("a.tct is not a tcptrace trace: ")),
        "{summary:?}"
    );
    let folder = tempfolder();
    let good = folder.join("good.tct");
    fs::write(&good, blocks().concat()).expect("there is room");
    let all = [folder.join("missing.tct"), good, folder.clone()];
    let (rows, summary) = tell(Recordings::open(&all).expect("one of them is a trace"));
    assert_eq!(rows, whole());
    assert!(summary.damage[0].contains("missing.tct cannot be read: No such file"), "{summary:?}");
    assert!(summary.damage[1].contains("cannot be read: is a directory"), "{summary:?}");
    let error = Recordings::open(&all[..1]).err().expect("there is no other one");
    assert!(error.to_string().contains("cannot read the trace"), "{error}");
    fs::remove_dir_all(folder).expect("it is ours");
}

fn tempfolder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("tcptrace-damage-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A block of names, longer than the recorder writes now.
fn names(len: usize) -> (Vec<u8>, usize) {
    let name = [&[kind::GROUP][..], &[0xfb, 1, 1], &[b'x'; 250]].concat();
    let count = len / name.len();
    (block(&name.repeat(count)), count)
}

#[rstest]
#[case::as_long_as_is_written(LONGEST, true)]
#[case::as_earlier_recorders_wrote(LONGEST_READ - 1000, true)]
#[case::longer(LONGEST_READ + LONGEST_READ / 32, false)]
fn blocks_of_earlier_recorders_can_be_read(#[case] len: usize, #[case] expected: bool) {
    let (bytes, count) = names(len);
    let (blocks, damage) = read(&[bytes, file(&sample())].concat());
    assert_eq!(blocks.len(), if expected { 4 } else { 3 }, "the block behind it is read");
    assert_eq!(damage.is_empty(), expected, "{damage:?}");
    assert_eq!(blocks[0].len() == count, expected);
}

/// A few bytes of a file once took minutes to read.
#[rstest]
#[case::zeros(&[0, 0])]
#[case::of_later_versions(&[200, 0])]
#[case::descriptions(&[kind::SOCKET, 16, 0, 2, 1, 2, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])]
fn records_without_meaning_are_damage(#[case] record: &[u8]) {
    let raw = record.repeat(LONGEST / record.len());
    let (mut decoder, mut items) = (decode::Decoder::default(), Vec::new());
    let invalid = decoder.next(&raw, 1, None, &mut items).expect_err("it is invalid");
    assert!(invalid.at <= record.len() << 14, "{invalid} of {}", raw.len());
    assert_eq!(decoder.next(&raw, 1, None, &mut items), Ok(false), "the rest is skipped");
    let mut sockets = 0;
    let mut decoder = decode::Decoder::default();
    decoder.each_socket(&raw, |_, _| sockets += 1);
    assert!(sockets <= 1 << 14, "{sockets}");
    let (read, damage) = read(&[block(&raw), file(&sample())].concat());
    assert_eq!(read.len(), 4);
    assert!(matches!(damage[..], [Damage { what: Wrong::Record(_), .. }]), "{damage:?}");
}

/// Any number of such records may stand between others.
#[test]
fn records_of_later_versions_between_events_are_no_damage() {
    let one = [[200, 0].repeat(1000), vec![kind::PASSED, 2, 2, 0]].concat();
    let (read, damage) = read(&block(&one.repeat(100)));
    assert_eq!((read[0].len(), damage), (100, vec![]));
}
