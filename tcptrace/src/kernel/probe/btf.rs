//! The types of a kernel, as its BTF describes them (`Documentation/bpf/btf.rst`): enough of it to find members,
//! arguments of tracepoints, and enumerations.

use zerocopy::native_endian::{I32, U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const MAGIC: u16 = 0xeb9f;

/// Deepest nesting of anonymous structures, and longest chain of modifiers: only circles exceed it.
const DEEPEST: usize = 32;

/// Members that are looked at for one name: structures of a kernel have some hundreds, with the anonymous ones in them.
/// Circles that meet more than once at each turn would take for ever.
const MOST_MEMBERS: usize = 1 << 16;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U16,
    version: u8,
    flags: u8,
    len: U32,
    types: U32,
    types_len: U32,
    strings: U32,
    strings_len: U32,
}

/// `struct btf_type`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Common {
    name: U32,
    info: U32,
    size_or_type: U32,
}

/// `struct btf_member`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Member {
    name: U32,
    of: U32,
    offset: U32,
}

/// `struct btf_enum`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Variant {
    name: U32,
    value: I32,
}

/// The kinds of types that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pointer,
    Structure,
    Union,
    Enumeration,
    Typedef,
    /// `const`, `volatile`, `restrict`, or a tag.
    Modifier,
    Prototype,
    Function,
    Other,
}

/// A type: its name, and what describes it.
#[derive(Clone, Copy)]
pub(super) struct Type<'b> {
    pub(super) kind: Kind,
    name: u32,
    count: usize,
    is_bit_field: bool,
    /// The type that it refers to, for those that do.
    of: u32,
    rest: &'b [u8],
}

/// Where a member of a structure is.
#[derive(Clone, Copy)]
struct Place {
    /// In bits.
    offset: u32,
    /// Of a bit field, in bits; 0 for what is none.
    width: u32,
    /// Its type.
    of: u32,
}

/// All types of a kernel.
pub(super) struct Btf<'b> {
    types: &'b [u8],
    strings: &'b [u8],
    /// Where each type begins; type 1 is the first.
    places: Vec<u32>,
}

impl<'b> Btf<'b> {
    /// Reads raw BTF.
    ///
    /// # Errors
    /// When it is not BTF, or is cut off.
    pub(super) fn read(raw: &'b [u8]) -> Result<Self, String> {
        let (header, _) = Header::ref_from_prefix(raw).map_err(|_| "it is too short")?;
        if header.magic.get() != MAGIC || header.version != 1 {
            return Err("it is not BTF of version 1".into());
        }
        let section = |from: U32, len: U32| {
            let from = usize::try_from(header.len.get()).ok()?.checked_add(usize::try_from(from.get()).ok()?)?;
            raw.get(from..from.checked_add(usize::try_from(len.get()).ok()?)?)
        };
        let types = section(header.types, header.types_len).ok_or("its types are cut off")?;
        let strings = section(header.strings, header.strings_len).ok_or("its strings are cut off")?;
        let mut btf = Self { types, strings, places: Vec::with_capacity(types.len() / 20) };
        let mut at = 0;
        while at < types.len() {
            let len = Type::read(&types[at..]).map(|(_, len)| len);
            let len = len.ok_or_else(|| format!("type {} is malformed", btf.places.len() + 1))?;
            btf.places.push(u32::try_from(at).map_err(|_| "it is too long")?);
            at += len;
        }
        Ok(btf)
    }

    /// A type by its number.
    fn get(&self, id: u32) -> Option<Type<'b>> {
        let place = *self.places.get(usize::try_from(id).ok()?.checked_sub(1)?)?;
        Type::read(self.types.get(usize::try_from(place).ok()?..)?).map(|(of, _)| of)
    }

    /// All types of a kind, with their names.
    pub(super) fn each(&self, kind: Kind) -> impl Iterator<Item = (&'b [u8], Type<'b>)> {
        let types = self.places.iter().filter_map(|place| Type::read(self.types.get(*place as usize..)?));
        types.filter(move |(of, _)| of.kind == kind).map(|(of, _)| (self.string(of.name), of))
    }

    /// The first type with this name.
    pub(super) fn named(&self, kind: Kind, name: &str) -> Option<Type<'b>> {
        self.each(kind).find(|(its, _)| *its == name.as_bytes()).map(|(_, of)| of)
    }

    /// What a type refers to.
    pub(super) fn target(&self, of: Type<'b>) -> Option<Type<'b>> {
        self.get(of.of)
    }

    /// Offset in bytes of a member of a structure, by its path (`ns.inum`). Members may lie in anonymous structures and
    /// unions. `None` where there is none, or it is a bit field.
    pub(super) fn offset(&self, structure: Type<'b>, path: &str) -> Option<u32> {
        let (mut composite, mut bits) = (structure, 0_u32);
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let member = self.member(composite, name.as_bytes()).filter(|member| member.width == 0)?;
            bits = bits.checked_add(member.offset)?;
            if names.peek().is_some() {
                composite = self.composite(member.of)?;
            }
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// The byte in which a bit field of a structure lies, and its bits there. `None` where there is none, or it is in more
    /// than one byte.
    pub(super) fn bits(&self, structure: Type<'b>, name: &str) -> Option<(u32, u8)> {
        let Place { offset, width, .. } = self.member(structure, name.as_bytes())?;
        let first = offset % 8;
        if width == 0 || first + width > 8 {
            return None;
        }
        // On machines that have the highest byte first, the first bit is the highest one.
        let shift = if cfg!(target_endian = "big") { 8 - first - width } else { first };
        Some((offset / 8, (u8::MAX >> (8 - width)) << shift))
    }

    /// Where a member is, and its type.
    fn member(&self, composite: Type<'b>, name: &[u8]) -> Option<Place> {
        self.member_within(composite, name, DEEPEST, &mut { MOST_MEMBERS })
    }

    /// The same, no deeper than this, and among no more members than are left.
    fn member_within(&self, composite: Type<'b>, name: &[u8], deepest: usize, left: &mut usize) -> Option<Place> {
        let members = <[Member]>::ref_from_prefix_with_elems(composite.rest, composite.count).ok()?.0;
        members.iter().find_map(|member| {
            *left = left.checked_sub(1)?;
            let (offset, width) = match composite.is_bit_field {
                true => (member.offset.get() & 0x00ff_ffff, member.offset.get() >> 24),
                false => (member.offset.get(), 0),
            };
            let its = self.string(member.name.get());
            if its == name {
                return Some(Place { offset, width, of: member.of.get() });
            }
            if !its.is_empty() || deepest == 0 {
                return None;
            }
            let within = self.member_within(self.composite(member.of.get())?, name, deepest - 1, left)?;
            Some(Place { offset: offset.checked_add(within.offset)?, ..within })
        })
    }

    /// The structure or union with this number, behind modifiers.
    fn composite(&self, id: u32) -> Option<Type<'b>> {
        let mut of = self.get(id)?;
        for _ in 0..DEEPEST {
            match of.kind {
                Kind::Structure | Kind::Union => return Some(of),
                Kind::Modifier | Kind::Typedef => of = self.target(of)?,
                _ => return None,
            }
        }
        None
    }

    /// How many parameters a prototype has.
    pub(super) fn parameters(of: Type<'b>) -> Option<usize> {
        (of.kind == Kind::Prototype).then_some(of.count)
    }

    /// The variants of an enumeration.
    pub(super) fn variants(&self, of: Type<'b>) -> impl Iterator<Item = (&'b [u8], i32)> {
        let variants = <[Variant]>::ref_from_prefix_with_elems(of.rest, of.count).map_or(&[][..], |(all, _)| all);
        variants.iter().map(|variant| (self.string(variant.name.get()), variant.value.get()))
    }

    fn string(&self, at: u32) -> &'b [u8] {
        let rest = usize::try_from(at).ok().and_then(|at| self.strings.get(at..)).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl<'b> Type<'b> {
    /// The type at the beginning of these bytes, and how many it takes.
    fn read(bytes: &'b [u8]) -> Option<(Self, usize)> {
        let (common, rest) = Common::read_from_prefix(bytes).ok()?;
        let info = common.info.get();
        let count = (info & 0xffff) as usize;
        let (kind, len) = match info >> 24 & 0x1f {
            2 => (Kind::Pointer, 0),
            4 => (Kind::Structure, 12 * count),
            5 => (Kind::Union, 12 * count),
            6 => (Kind::Enumeration, 8 * count),
            8 => (Kind::Typedef, 0),
            9..=11 | 18 => (Kind::Modifier, 0),
            13 => (Kind::Prototype, 8 * count),
            12 => (Kind::Function, 0),
            // Forward declarations and floats.
            7 | 16 => (Kind::Other, 0),
            // Integers, variables and tags of declarations.
            1 | 14 | 17 => (Kind::Other, 4),
            // Arrays.
            3 => (Kind::Other, 12),
            // Sections, and enumerations of 64 bits.
            15 | 19 => (Kind::Other, 12 * count),
            _ => return None,
        };
        let rest = rest.get(..len)?;
        let (name, of) = (common.name.get(), common.size_or_type.get());
        Some((Self { kind, name, count, is_bit_field: info >> 31 == 1, of, rest }, size_of::<Common>() + len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn info(kind: u32, count: u32, flag: bool) -> u32 {
        u32::from(flag) << 31 | kind << 24 | count
    }

    /// `struct a { int x; union { const struct b y; }; unsigned z: 3; }; struct b { int x; }; enum e { V = -2 };`
    fn sample() -> Vec<u8> {
        let strings = b"\0a\0x\0y\0z\0b\0e\0V\0p\0";
        let types = [
            words(&[0, info(1, 0, false), 4, 32]),
            words(&[1, info(4, 3, true), 16, 3, 1, 0, 0, 3, 32, 7, 1, 3 << 24 | 96]),
            words(&[0, info(5, 1, false), 8, 5, 4, 0]),
            words(&[0, info(10, 0, false), 5]),
            words(&[9, info(4, 1, false), 8, 3, 1, 32]),
            words(&[11, info(6, 1, false), 4, 13, -2_i32 as u32]),
            words(&[15, info(8, 0, false), 8]),
            words(&[0, info(2, 0, false), 9]),
            words(&[0, info(13, 2, false), 0, 0, 8, 0, 1]),
        ]
        .concat();
        let len = |bytes: &[u8]| bytes.len() as u32;
        let head =
            [&MAGIC.to_ne_bytes()[..], &[1, 0], &words(&[24, 0, len(&types), len(&types), len(strings)])].concat();
        [&head[..], &types, strings].concat()
    }

    #[test]
    fn members() {
        let raw = sample();
        let btf = Btf::read(&raw).expect("BTF");
        let structure = btf.named(Kind::Structure, "a").expect("it is there");
        let offsets = ["x", "y", "y.x", "z", "y.z", "q"].map(|path| btf.offset(structure, path));
        assert_eq!(offsets, [Some(0), Some(4), Some(8), None, None, None], "bit fields have no offset in bytes");
        assert!(btf.named(Kind::Union, "a").is_none());
        let bits = ["z", "x", "y", "q"].map(|name| btf.bits(structure, name));
        let z = if cfg!(target_endian = "big") { 0b1110_0000 } else { 0b111 };
        assert_eq!(bits, [Some((12, z)), None, None, None], "only bit fields have bits");
    }

    #[test]
    fn prototypes_and_enumerations() {
        let raw = sample();
        let btf = Btf::read(&raw).expect("BTF");
        let typedef = btf.named(Kind::Typedef, "p").expect("it is there");
        let prototype = btf.target(typedef).and_then(|pointer| btf.target(pointer)).expect("they are there");
        assert_eq!(Btf::parameters(prototype), Some(2));
        let variants: Vec<_> =
            btf.named(Kind::Enumeration, "e").map(|e| btf.variants(e).collect()).expect("it is there");
        assert_eq!(variants, [(&b"V"[..], -2)]);
    }

    /// `struct a { struct a; struct a; };`, which no compiler makes.
    #[test]
    fn what_contains_itself_twice_ends() {
        let types = words(&[1, info(4, 2, false), 8, 0, 1, 0, 0, 1, 32]);
        let len = types.len() as u32;
        let head = [&MAGIC.to_ne_bytes()[..], &[1, 0], &words(&[24, 0, len, len, 3])].concat();
        let raw = [&head[..], &types, b"\0a\0"].concat();
        let btf = Btf::read(&raw).expect("BTF");
        let structure = btf.named(Kind::Structure, "a").expect("it is there");
        assert_eq!((btf.offset(structure, "x"), btf.bits(structure, "x")), (None, None));
    }

    #[test]
    fn what_is_no_btf() {
        let raw = sample();
        let why = |raw: &[u8]| Btf::read(raw).err().unwrap_or_default();
        assert_eq!(why(&[]), "it is too short");
        assert_eq!(why(&[0; 64]), "it is not BTF of version 1");
        assert_eq!(why(&raw[..60]), "its types are cut off");
        assert_eq!(why(&raw[..raw.len() - 1]), "its strings are cut off");
    }

    proptest! {
        /// Reading any bytes ends.
        #[test]
        fn any_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12)) {
            let mut raw = sample();
            for (place, byte) in changes {
                let place = place.index(raw.len());
                raw[place] = byte;
            }
            if let Ok(btf) = Btf::read(&raw) {
                for kind in [Kind::Structure, Kind::Union, Kind::Modifier] {
                    for (_, of) in btf.each(kind) {
                        btf.offset(of, "y.x");
                        btf.bits(of, "z");
                        btf.target(of);
                    }
                }
                btf.each(Kind::Enumeration).for_each(|(_, of)| assert!(btf.variants(of).count() <= 0xffff));
            }
        }
    }
}
