//! What the fuzzer does with an input; the corpus is replayed by the test below.
mod stream;

use std::fmt::Write;

pub use self::stream::stream;
use crate::ramblock::{RamBlock, parse, parse_gpa2hva, physical_address};

/// Reads a text as each of QEMU's answers about memory blocks. A table that is read reads the same after it was laid
/// out anew.
///
/// # Panics
/// Where a reader does, or that promise is broken.
pub fn ramblock(data: &[u8]) {
    // QMP is JSON: what comes out of it is text.
    let text = String::from_utf8_lossy(data);
    if let Some(blocks) = parse(&text) {
        for block in &blocks {
            physical_address(&text, &block.name);
        }
        assert_eq!(parse(&lay_out(&blocks)).as_deref(), Some(&blocks[..]), "{text:?}");
    }
    if let Some((name, address)) = parse_gpa2hva(&text) {
        let again = format!("Host virtual address for 0x0 ({name}) is {address:#x}");
        assert_eq!(parse_gpa2hva(&again), Some((name, address)), "{text:?}");
    }
    physical_address(&text, "pc.ram");
}

/// The table as QEMU prints it, with addresses if the blocks have them.
fn lay_out(blocks: &[RamBlock]) -> String {
    let addressed = blocks.iter().any(|block| block.address.is_some());
    let mut table = String::from("Block Name    PSize    Offset    Used    Total");
    table.push_str(if addressed { "    HVA  RO\n" } else { "\n" });
    for RamBlock { name, used, total, address } in blocks {
        let _ = write!(table, "{name}  4 KiB  0x0 {used:#018x} {total:#018x}");
        let _ = match address {
            Some(address) => writeln!(table, " {address:#018x}  rw"),
            None => writeln!(table),
        };
    }
    table
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_of_ramblock_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/ramblock");
        let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        inputs.iter().for_each(|input| super::ramblock(&fs::read(input).unwrap()));
    }
}
