//! A block gets one item more after it was packed.

use super::*;

fn why() -> Item {
    Item::Fired(Box::new(Fired { at: 7, when: "close-wait-leak".into(), ..Fired::default() }))
}

#[test]
fn it_comes_last_and_nothing_else_changes() {
    let mut all = sample();
    all.insert(0, vec![Item::Head(Box::default()), Item::Clocks(Clocks::default())]);
    for (number, items) in all.iter().enumerate() {
        let mut encoder = Encoder::resume(RECORDING, number as u64).expect("memory");
        items.iter().for_each(|item| encoder.push(item).expect("it fits"));
        let block = encoder.finish(3).expect("it can be packed");
        let more = append(&block, &why()).expect("it fits");
        let (blocks, damages) = read(&more);
        assert_eq!(blocks, [[&items[..], &[why()]].concat()]);
        assert_eq!(damages, []);
        let head = |bytes: &[u8]| {
            *Blocks::new(bytes)
                .expect("memory")
                .next(|_| true)
                .expect("bytes")
                .expect("a block")
                .as_ref()
                .map(|(head, _)| head)
                .expect("whole")
        };
        let (before, after) = (head(&block), head(&more));
        let same = |head: BlockHead| {
            (head.block, head.file, head.events, head.first_at, head.min_id, head.max_id, head.version)
        };
        assert_eq!(same(before), same(after));
    }
}

#[test]
fn damage_is_no_block() {
    let whole = file(&sample());
    for bytes in [&whole[..0], &whole[..40], &whole[1..]] {
        assert!(append(bytes, &why()).is_err());
    }
}
