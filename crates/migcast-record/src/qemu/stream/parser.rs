//! What makes events of bytes: one item after the other, as they arrive.

use super::input::Input;
use super::{Block, Event, PAGE_SIZE, Page, Section, StreamError, unexpected};

const MAGIC: u32 = 0x5145_564d;
const VERSION: u32 = 3;

const SECTION_START: u8 = 0x01;
const SECTION_PART: u8 = 0x02;
const SECTION_END: u8 = 0x03;
const CONFIGURATION: u8 = 0x07;
/// A message to the target, such as SWITCHOVER_START before the guest is stopped (10.0 and later).
const COMMAND: u8 = 0x08;
const FOOTER: u8 = 0x7e;
/// A configuration is the machine's name and a few numbers. It is held until it has arrived whole.
const CONFIGURATION_BYTES_MAX: u32 = 1 << 16;

/// The part of a word of `ram` that holds flags; what is above is an offset or a size.
const FLAGS: u64 = PAGE_SIZE - 1;
const ZERO: u64 = 0x02;
const MEM_SIZE: u64 = 0x04;
const PAGE: u64 = 0x08;
const EOS: u64 = 0x10;
const CONTINUE: u64 = 0x20;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Header,
    Section,
    /// The next word of this section.
    Word(Section),
    /// So many bytes of a page's content, then the next word.
    Content(usize, Section),
    /// The rest of the list of blocks: so many bytes of memory are still unnamed.
    BlockList(u64),
    Footer(Section),
    /// The state of devices.
    Rest,
}

/// Follows a stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct Parser {
    expect: Expect,
    /// Bytes that have arrived and are not understood yet: less than one item. Contents are passed over as they come.
    held: Vec<u8>,
    /// Bytes understood so far.
    position: u64,
    ram: Option<u32>,
    blocks: Vec<Block>,
    /// The block of the last page: its place in the list and its first page. It outlives a section.
    current: Option<(usize, u64)>,
}

impl Default for Parser {
    fn default() -> Parser {
        let (held, blocks) = (Vec::new(), Vec::new());
        Parser { expect: Expect::Header, held, position: 0, ram: None, blocks, current: None }
    }
}

impl Parser {
    /// Takes the next bytes and tells what they complete.
    ///
    /// # Errors
    /// The stream is not one this can follow. Nothing can be pushed after that.
    pub fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(Event)) -> Result<(), StreamError> {
        let mut held = std::mem::take(&mut self.held);
        let all = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let mut input = Input { bytes: all, at: self.position };
        // An item is understood whole or not at all.
        let mut rest = input;
        while self.expect != Expect::Rest && self.item(&mut input, &mut tell)?.is_some() {
            rest = input;
        }
        if self.expect == Expect::Rest {
            rest = Input { bytes: &[], at: rest.at + rest.bytes.len() as u64 };
        }
        self.position = rest.at;
        self.held = rest.bytes.to_vec();
        Ok(())
    }

    /// Whether all memory has been read: only the state of devices follows.
    pub fn is_past_memory(&self) -> bool {
        self.expect == Expect::Rest
    }

    /// Understands one item; `None` if it has not arrived whole.
    fn item(&mut self, input: &mut Input, tell: &mut impl FnMut(Event)) -> Result<Option<()>, StreamError> {
        let next = match self.expect {
            Expect::Header => header(input)?,
            Expect::Section => self.section(input, tell)?,
            Expect::Word(section) => self.word(input, section, tell)?,
            Expect::Content(left, section) => content(input, left, section),
            Expect::BlockList(left) => self.block(input, left, tell)?,
            Expect::Footer(section) => self.footer(input, section, tell)?,
            Expect::Rest => None,
        };
        Ok(next.map(|next| self.expect = next))
    }

    fn section(&mut self, input: &mut Input, tell: &mut impl FnMut(Event)) -> Result<Option<Expect>, StreamError> {
        let at = input.at;
        let Some(kind) = input.u8() else { return Ok(None) };
        if kind == COMMAND {
            let length = input.u16().zip(input.u16()).map(|(_, length)| length);
            let whole = length.and_then(|length| input.take(length.into()));
            return Ok(whole.map(|_| Expect::Section));
        }
        let Some(id) = input.u32() else { return Ok(None) };
        let section = match kind {
            SECTION_START => Section::Start,
            SECTION_PART => Section::Part,
            SECTION_END => Section::End,
            _ => return Err(unexpected(at, "section type", kind, "1 (start), 2 (part), 3 (end) or 8 (command)")),
        };
        if section == Section::Start {
            let Some((name, _)) = input.name()?.zip(input.u64()) else { return Ok(None) };
            if name != "ram" || self.ram.is_some() {
                return Err(StreamError::OtherSection { at, name });
            }
            self.ram = Some(id);
        } else if self.ram != Some(id) {
            return Err(unexpected(at, "section id", id, "that of 'ram'"));
        }
        tell(Event::Began(section));
        Ok(Some(Expect::Word(section)))
    }

    fn word(
        &mut self,
        input: &mut Input,
        section: Section,
        tell: &mut impl FnMut(Event),
    ) -> Result<Option<Expect>, StreamError> {
        let at = input.at;
        let Some(word) = input.u64() else { return Ok(None) };
        let (flags, offset) = (word & FLAGS, word & !FLAGS);
        match flags & !CONTINUE {
            EOS => {
                tell(Event::Marked(section));
                return Ok(Some(Expect::Footer(section)));
            }
            MEM_SIZE if section == Section::Start && self.blocks.is_empty() => {
                return Ok(Some(Expect::BlockList(offset)));
            }
            ZERO | PAGE if section != Section::Start => {}
            _ => return Err(unexpected(at, "flags", flags, "2 (zero), 8 (page), 16 (end), with 32; 4 in set-up")),
        }
        if flags & CONTINUE == 0 {
            let Some(name) = input.name()? else { return Ok(None) };
            self.current = Some(self.find(&name).ok_or(StreamError::NoSuchPage { at, block: name, offset })?);
        }
        let zero = flags & ZERO != 0;
        if zero {
            match input.u8() {
                Some(0) => {}
                Some(other) => return Err(unexpected(at, "fill byte", other, "0")),
                None => return Ok(None),
            }
        }
        let current =
            self.current.ok_or_else(|| unexpected(at, "flags", flags, "a block's name before the first page"));
        let (block, first) = current?;
        let (block, page) = (&self.blocks[block], offset / PAGE_SIZE);
        if page >= block.pages {
            return Err(StreamError::NoSuchPage { at, block: block.name.clone(), offset });
        }
        tell(Event::Page(Page { index: first + page, zero }));
        Ok(Some(if zero { Expect::Word(section) } else { Expect::Content(PAGE_SIZE as usize, section) }))
    }

    /// A block's place in the list and its first page.
    fn find(&self, name: &str) -> Option<(usize, u64)> {
        let place = self.blocks.iter().position(|block| block.name == name)?;
        Some((place, self.blocks[..place].iter().map(|block| block.pages).sum()))
    }

    fn block(
        &mut self,
        input: &mut Input,
        left: u64,
        tell: &mut impl FnMut(Event),
    ) -> Result<Option<Expect>, StreamError> {
        if left == 0 {
            tell(Event::Blocks(self.blocks.clone()));
            return Ok(Some(Expect::Word(Section::Start)));
        }
        let at = input.at;
        let Some((name, length)) = input.name()?.zip(input.u64()) else { return Ok(None) };
        if length == 0 || length > left {
            return Err(unexpected(at, "block length", length, "at most what is left of the memory"));
        }
        if self.find(&name).is_some() {
            return Err(StreamError::BlockTwice { at, name });
        }
        self.blocks.push(Block { name, pages: length.div_ceil(PAGE_SIZE) });
        Ok(Some(Expect::BlockList(left - length)))
    }

    fn footer(
        &mut self,
        input: &mut Input,
        section: Section,
        tell: &mut impl FnMut(Event),
    ) -> Result<Option<Expect>, StreamError> {
        let at = input.at;
        let Some((mark, id)) = input.u8().zip(input.u32()) else { return Ok(None) };
        if mark != FOOTER || self.ram != Some(id) {
            return Err(unexpected(at, "footer", u64::from(mark) << 32 | u64::from(id), "0x7e and the section's id"));
        }
        tell(Event::Ended(section));
        Ok(Some(if section == Section::End { Expect::Rest } else { Expect::Section }))
    }
}

/// Passes over what has arrived of a page's content.
fn content(input: &mut Input, left: usize, section: Section) -> Option<Expect> {
    let count = left.min(input.bytes.len());
    input.take(count).filter(|taken| !taken.is_empty())?;
    Some(if count == left { Expect::Word(section) } else { Expect::Content(left - count, section) })
}

/// Magic, version, and the configuration: the machine's name.
fn header(input: &mut Input) -> Result<Option<Expect>, StreamError> {
    let at = input.at;
    let Some((magic, version)) = input.u32().zip(input.u32()) else { return Ok(None) };
    if magic != MAGIC {
        return Err(unexpected(at, "magic", magic, "0x5145564d"));
    }
    if version != VERSION {
        return Err(unexpected(at + 4, "version", version, "3"));
    }
    let at = input.at;
    let Some((kind, length)) = input.u8().zip(input.u32()) else { return Ok(None) };
    if kind != CONFIGURATION {
        return Err(unexpected(at, "section type", kind, "7 (configuration)"));
    }
    if length > CONFIGURATION_BYTES_MAX {
        return Err(unexpected(at + 1, "length of the configuration", length, "at most 0x10000"));
    }
    Ok(input.take(length as usize).map(|_| Expect::Section))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word of `ram`.
    fn word(offset: u64, flags: u64) -> Vec<u8> {
        (offset | flags).to_be_bytes().to_vec()
    }

    fn name(name: &str) -> Vec<u8> {
        [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
    }

    /// Magic, version and a machine called `pc`.
    fn head() -> Vec<u8> {
        [b"QEVM\0\0\0\x03".as_slice(), &[CONFIGURATION, 0, 0, 0, 2], b"pc"].concat()
    }

    /// `ram` has the section id 2 and two blocks: `pc.ram` of three pages and `vga` of two.
    fn setup() -> Vec<u8> {
        let block = |block, bytes: u64| [name(block), bytes.to_be_bytes().to_vec()].concat();
        let begin = [vec![SECTION_START, 0, 0, 0, 2], name("ram"), vec![0, 0, 0, 0, 0, 0, 0, 4]].concat();
        let list =
            [word(5 * PAGE_SIZE, MEM_SIZE), block("pc.ram", 3 * PAGE_SIZE), block("vga", 2 * PAGE_SIZE)].concat();
        [begin, list, end()].concat()
    }

    fn begin(kind: u8) -> Vec<u8> {
        vec![kind, 0, 0, 0, 2]
    }

    fn end() -> Vec<u8> {
        [word(0, EOS), vec![FOOTER, 0, 0, 0, 2]].concat()
    }

    fn full_page() -> Vec<u8> {
        vec![7; PAGE_SIZE as usize]
    }

    /// Pages 1 and 2 of `pc.ram` and 0 of `vga` in a part, page 1 of `vga` at the end, then a device's state.
    fn whole() -> Vec<u8> {
        let first = [word(PAGE_SIZE, PAGE), name("pc.ram"), full_page()].concat();
        let second = [word(2 * PAGE_SIZE, ZERO | CONTINUE), vec![0]].concat();
        let third = [word(0, ZERO), name("vga"), vec![0]].concat();
        let part = [begin(SECTION_PART), first, second, third, end()].concat();
        // The block of the last page is remembered from one section to the next.
        let last = [begin(SECTION_END), word(PAGE_SIZE, PAGE | CONTINUE), full_page(), end()].concat();
        let command = vec![COMMAND, 0, 11, 0, 2, 1, 2];
        [head(), setup(), part, command, last, vec![4, 0xff, 0xff]].concat()
    }

    fn parse(bytes: &[u8], piece: usize) -> Result<Vec<Event>, StreamError> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            parser.push(piece, |event| events.push(event))?;
        }
        Ok(events)
    }

    fn refusal(bytes: &[u8]) -> String {
        parse(bytes, 1 << 20).unwrap_err().to_string()
    }

    #[test]
    fn a_stream_is_told_alike_however_it_is_cut() {
        let page = |index, zero| Event::Page(Page { index, zero });
        let block = |name: &str, pages| Block { name: name.to_owned(), pages };
        let expected = [
            Event::Began(Section::Start),
            Event::Blocks(vec![block("pc.ram", 3), block("vga", 2)]),
            Event::Marked(Section::Start),
            Event::Ended(Section::Start),
            Event::Began(Section::Part),
            page(1, false),
            page(2, true),
            page(3, true),
            Event::Marked(Section::Part),
            Event::Ended(Section::Part),
            Event::Began(Section::End),
            page(4, false),
            Event::Marked(Section::End),
            Event::Ended(Section::End),
        ];
        for piece in [1, 2, 7, 4096, 1 << 20] {
            assert_eq!(parse(&whole(), piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn memory_is_over_with_its_last_section_and_the_rest_is_passed_over() {
        let mut parser = Parser::default();
        let bytes = whole();
        parser.push(&bytes[..bytes.len() - 4], |_| {}).unwrap();
        assert!(!parser.is_past_memory());
        parser.push(&bytes[bytes.len() - 4..], |_| {}).unwrap();
        parser.push(&[0xff; 5000], |_| {}).unwrap();
        assert!(parser.is_past_memory() && parser.held.is_empty());
    }

    #[test]
    fn what_is_no_stream_of_memory_is_refused_in_one_line_with_its_place() {
        assert_eq!(refusal(&[0; 8]), "migration stream, byte 0: magic 0x0, expected 0x5145564d");
        assert_eq!(refusal(b"QEVM\0\0\0\x02"), "migration stream, byte 4: version 0x2, expected 3");
        let subsection = [head(), vec![5, 0, 0, 0, 0]].concat();
        let expected =
            "migration stream, byte 15: section type 0x5, expected 1 (start), 2 (part), 3 (end) or 8 (command)";
        assert_eq!(refusal(&subsection), expected);
        let other = [head(), vec![SECTION_START, 0, 0, 0, 1], name("disk"), vec![0; 8]].concat();
        let expected = "migration stream, byte 15: section 'disk', expected 'ram' alone before the guest is stopped";
        assert_eq!(refusal(&other), expected);
        let stranger = [head(), setup(), vec![SECTION_PART, 0, 0, 0, 9]].concat();
        assert!(refusal(&stranger).ends_with("section id 0x9, expected that of 'ram'"));
    }

    #[test]
    fn what_would_be_held_without_end_or_named_twice_is_refused() {
        let endless = [b"QEVM\0\0\0\x03".as_slice(), &[CONFIGURATION, 0, 1, 0, 1]].concat();
        let expected = "migration stream, byte 9: length of the configuration 0x10001, expected at most 0x10000";
        assert_eq!(refusal(&endless), expected);
        let begin = [vec![SECTION_START, 0, 0, 0, 2], name("ram"), vec![0; 8]].concat();
        let block = [name("vga"), PAGE_SIZE.to_be_bytes().to_vec()].concat();
        let list = [word(2 * PAGE_SIZE, MEM_SIZE), block.clone(), block.clone()].concat();
        assert!(refusal(&[head(), begin.clone(), list].concat()).ends_with("block 'vga' is listed twice"));
        let lists = [word(PAGE_SIZE, MEM_SIZE), block, word(PAGE_SIZE, MEM_SIZE)].concat();
        assert!(refusal(&[head(), begin, lists].concat()).contains("flags 0x4"));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let part = |bytes: Vec<u8>| refusal(&[head(), setup(), begin(SECTION_PART), bytes].concat());
        let beyond = part([word(3 * PAGE_SIZE, ZERO), name("pc.ram"), vec![0]].concat());
        let expected = "migration stream, byte 85: page at offset 0x3000 of block 'pc.ram', which has no such page";
        assert_eq!(beyond, expected);
        assert!(part([word(0, ZERO), name("rom"), vec![0]].concat()).contains("of block 'rom'"));
        assert!(part([word(0, ZERO | CONTINUE), vec![0]].concat()).ends_with("a block's name before the first page"));
        assert!(part([word(0, ZERO), name("vga"), vec![1]].concat()).contains("fill byte 0x1"));
        assert!(part(word(0, 0x40)).contains("flags 0x40"), "XBZRLE");
        assert!(part([word(0, ZERO), name("a\nb"), vec![0]].concat()).contains("byte 95: letter of a name 0xa"));
        assert!(part([word(0, EOS), vec![FOOTER, 0, 0, 0, 3]].concat()).contains("footer 0x7e00000003"));
    }
}
