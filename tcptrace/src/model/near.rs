//! A hash for numbers of sockets that keeps near ones together.

/// Sockets made at the same time have numbers that follow each other, and end at the same time, too. Sixteen such numbers
/// lie side by side in a table: the lowest bits are the place there, and the highest bits tell near ones apart.
pub(crate) fn near(number: u64) -> u64 {
    let wide = u128::from(number >> 4 ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
    let mixed = (wide >> 64) as u64 ^ wide as u64;
    (mixed & !15 | number & 15) ^ number << 60
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Their places are in one group of a table, and their tags differ.
    #[test]
    fn near_numbers_lie_side_by_side() {
        for first in [0, 0x1234_5670, !15] {
            let hashes: Vec<u64> = (0..16).map(|more| near(first + more)).collect();
            let places: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
            let groups: HashSet<u64> = places.iter().map(|place| place / 16).collect();
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert_eq!((places.len(), groups.len(), tags.len() >= 8), (16, 1, true));
        }
    }
}
