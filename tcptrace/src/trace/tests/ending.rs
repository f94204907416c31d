//! A file says that it ended properly, or it was cut off.

use super::damage::{told, whole_rows};
use super::*;
use crate::model::stream::{Ended, Head, Item, Reason};

fn head(says_end: bool) -> Item {
    Item::Head(Box::new(Head { says_end, ..Head::default() }))
}

fn ended(reason: Reason) -> Item {
    Item::Ended(Ended { at: 9_000_000, reason })
}

/// A file for each text, with a block for each word and an item for each letter: a head that announces an end record,
/// one that does not (`h`), or an end.
fn files(texts: &[&str]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(RECORDING).expect("memory");
    let mut write = |number: usize, word: &str| {
        for letter in word.chars() {
            let item = match letter {
                'H' => head(true),
                'h' => head(false),
                'T' => ended(Reason::Turned),
                'O' => ended(Reason::Other),
                _ => ended(Reason::Stopped),
            };
            encoder.push(&item).expect("it fits");
        }
        encoder.finish(number as u32).expect("it can be packed")
    };
    let texts = texts.iter().enumerate();
    texts.map(|(number, text)| text.split_whitespace().flat_map(|word| write(number, word)).collect()).collect()
}

#[rstest]
#[case::as_it_should(&["H S"], &[])]
#[case::in_one_block(&["HS"], &[])]
#[case::cut_off(&["H"], &["a.tct"])]
#[case::from_before_it_said_so(&["h"], &[])]
#[case::for_a_reason_of_later_versions(&["HO"], &[])]
#[case::it_went_on(&["HT H"], &["a.tct"])]
#[case::one_of_several(&["HT"], &[])]
#[case::several(&["HT", "HS"], &[])]
#[case::the_last_of_several(&["HT", "H"], &["b.tct"])]
#[case::the_last_one_is_empty(&["HT", ""], &["a.tct"])]
#[case::an_empty_one_of_something_else(&["HS", ""], &[])]
fn endings(#[case] texts: &[&str], #[case] expected: &[&str]) {
    let bytes = files(texts);
    let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let (_, summary) = told(&bytes);
    let cut_off: Vec<&str> = summary.cut_off.iter().map(|(name, _)| &**name).collect();
    assert_eq!(cut_off, expected);
    assert_eq!(summary.damage, Vec::<Box<str>>::new());
}

#[test]
fn a_reason_of_later_versions_is_one() {
    let ended: Ended = serde_json::from_str(r#"{"at":1,"reason":"moved away","more":2}"#).expect("an end");
    assert_eq!(ended.reason, Reason::Other);
}

/// The message names the time of the last event before the cut.
#[test]
fn the_time_of_the_end() {
    let mut items = vec![head(true)];
    items.extend(sample().concat());
    let (_, summary) = told(&[&file(&[items])]);
    assert_eq!(summary.cut_off, [("a.tct".into(), 3_000_099)]);
}

/// Readers read a block that a flight recorder wrote twice only once, together with each end record.
#[test]
fn dumps_that_overlap() {
    let mut all = sample();
    all.insert(0, vec![head(true)]);
    let mut encoder = Encoder::new(RECORDING).expect("memory");
    let end = |encoder: &Encoder| {
        let (recording, block) = encoder.position();
        let mut beside = Encoder::resume(recording, block).expect("memory").beside();
        beside.push(&ended(Reason::Dumped)).expect("it fits");
        beside.finish(0).expect("it can be packed")
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (number, items) in all.iter().enumerate() {
        items.iter().for_each(|item| encoder.push(item).expect("it fits"));
        let block = encoder.finish(0).expect("it can be packed");
        if number < 3 {
            first.extend_from_slice(&block);
        }
        second.extend(block);
        if number == 2 {
            first.extend(end(&encoder));
        }
    }
    let cut = second.clone();
    second.extend(end(&encoder));
    let (rows, summary) = told(&[&first, &second]);
    assert_eq!(rows, whole_rows(&all));
    assert_eq!((summary.damage.len(), summary.cut_off.len(), summary.events), (0, 0, 6));
    let (_, summary) = told(&[&first, &cut]);
    assert_eq!(summary.cut_off.len(), 1, "the second one alone: {summary:?}");
}

/// The first file of a recording should contain the recording's first block.
#[rstest]
#[case::said(true, 0, 1)]
#[case::of_another_file(true, 1, 0)]
#[case::from_before_it_said_so(false, 0, 0)]
fn the_first_block_is_missing(#[case] says_end: bool, #[case] file: u32, #[case] expected: usize) {
    let mut encoder = Encoder::resume(RECORDING, 3).expect("memory");
    [head(says_end), ended(Reason::Stopped)].iter().for_each(|item| encoder.push(item).expect("it fits"));
    let bytes = encoder.finish(file).expect("it can be packed");
    let (_, summary) = told(&[&bytes]);
    assert_eq!(summary.damage.len(), expected, "{summary:?}");
    assert_eq!(summary.lost.len(), expected, "{summary:?}");
}

/// One of several missing blocks is damaged; its head says how many events it contained.
#[test]
fn the_first_block_is_damaged_and_others_are_missing() {
    let whole = file(&sample());
    let mut encoder = Encoder::resume(RECORDING, 5).expect("memory");
    encoder.push(&ended(Reason::Stopped)).expect("it fits");
    let end = encoder.finish(0).expect("it can be packed");
    let first = ends(&whole)[0];
    let (_, summary) = told(&[&[&whole[..first - 1], &end].concat()]);
    assert!(matches!(&summary.lost[..], [lost] if (lost.events, lost.at_least) == (2, true)), "{summary:?}");
}
