//! QEMU's memory blocks: what `x-query-ramblock` (or `info ramblock`) prints, and where each lies in the process.

use crate::memory::Mapping;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RamBlock {
    pub(crate) name: String,
    /// Bytes in use: what is migrated.
    pub(crate) used: u64,
    /// Bytes it may grow to: what is mapped.
    pub(crate) total: u64,
    /// Its address in QEMU; older versions do not say.
    pub(crate) address: Option<u64>,
}

/// Reads the table, whose lines are in the order in which QEMU's migration walks the blocks (largest first, then as
/// they were made). `None` where it does not look as it should.
///
/// ```text
///               Block Name    PSize              Offset               Used              Total                HVA  RO
///                   pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000 0x00007fceb3e00000  rw
/// ```
pub(crate) fn parse(text: &str) -> Option<Vec<RamBlock>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let titles: Vec<&str> = lines.next()?.split_whitespace().collect();
    let after_total: Vec<&str> = titles.iter().skip_while(|&&title| title != "Total").skip(1).copied().collect();
    lines.map(|line| parse_line(line, &after_total)).collect()
}

fn parse_line(line: &str, after_total: &[&str]) -> Option<RamBlock> {
    // A name may contain anything, so the fields are taken from the right.
    let mut fields = line.split_whitespace().rev();
    let mut address = None;
    for title in after_total.iter().rev() {
        let field = fields.next()?;
        if *title == "HVA" {
            address = Some(hexadecimal(field)?);
        }
    }
    let (total, used, _offset) =
        (hexadecimal(fields.next()?)?, hexadecimal(fields.next()?)?, hexadecimal(fields.next()?)?);
    let (_unit, _page_size) = (fields.next()?, fields.next()?);
    let mut name: Vec<&str> = fields.collect();
    name.reverse();
    Some(RamBlock { name: name.join(" "), used, total, address })
}

fn hexadecimal(field: &str) -> Option<u64> {
    u64::from_str_radix(field.strip_prefix("0x")?, 16).ok()
}

/// Finds blocks whose address QEMU does not tell: `known` are (name, address) pairs from `gpa2hva`; any other block is
/// placed where exactly one mapping has its length. QEMU maps each block by itself, with a guard page behind it.
pub(crate) fn place(blocks: &mut [RamBlock], known: &[(String, u64)], mappings: &[Mapping]) {
    for block in blocks.iter_mut().filter(|block| block.address.is_none()) {
        block.address = known.iter().find(|(name, _)| *name == block.name).map(|&(_, address)| address);
    }
    let taken: Vec<u64> = blocks.iter().filter_map(|block| block.address).collect();
    let totals: Vec<u64> = blocks.iter().filter(|block| block.address.is_none()).map(|block| block.total).collect();
    for block in blocks.iter_mut().filter(|block| block.address.is_none()) {
        let fits = |mapping: &&Mapping| {
            mapping.addresses.end - mapping.addresses.start == block.total
                && mapping.writable
                && !taken.contains(&mapping.addresses.start)
        };
        let mut found = mappings.iter().filter(fits);
        let alone = totals.iter().filter(|&&total| total == block.total).count() == 1;
        if let (Some(mapping), None, true) = (found.next(), found.next(), alone) {
            block.address = Some(mapping.addresses.start);
        }
    }
}

/// Reads what `gpa2hva` prints: "Host virtual address for 0x0 (pc.ram) is 0x7fceb3e00000".
pub(crate) fn parse_gpa2hva(text: &str) -> Option<(String, u64)> {
    let (_, rest) = text.trim().split_once(" (")?;
    let (name, address) = rest.rsplit_once(") is 0x")?;
    Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
}

/// Reads, from `info mtree -f`, where in the guest's physical memory a block begins: the lines of the system's view
/// that show it from its offset 0, as in "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram".
pub(crate) fn physical_address(mtree: &str, name: &str) -> Option<u64> {
    let view =
        mtree.split("FlatView #").find(|view| view.lines().any(|line| line.trim() == "Root memory region: system"))?;
    view.lines().find_map(|line| {
        let (range, region) = line.trim().split_once(" (prio ")?;
        let (_, shown) = region.split_once("): ")?;
        // A view also says which accelerator maps it, after the name.
        let shown = shown.strip_suffix(" KVM").unwrap_or(shown);
        let (start, _) = range.split_once('-')?;
        if shown == name { u64::from_str_radix(start, 16).ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000 0x00007fceb3e00000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000009100000 0x0000000000020000 0x0000000000200000 0x00007fceb2000000  ro
              a 0xb name   64 KiB  0x0000000009100000 0x0000000000020000 0x0000000000200000 0x00007fceb2000000  ro
";

    const TABLE_7_2: &str =
        "              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000
                vga.vram    4 KiB  0x0000000008080000 0x0000000001000000 0x0000000001000000
                  pc.rom    4 KiB  0x0000000008040000 0x0000000000020000 0x0000000000020000
               other.rom    4 KiB  0x0000000008060000 0x0000000000020000 0x0000000000020000
";

    #[test]
    fn reads_the_table_of_10_0() {
        let blocks = parse(TABLE).unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[0].address, Some(0x7fce_b3e0_0000));
        assert_eq!((blocks[1].used, blocks[1].total), (0x20000, 0x20_0000));
        assert_eq!(blocks[1].name, "/rom@etc/acpi/tables");
        assert_eq!(blocks[2].name, "a 0xb name");
    }

    #[test]
    fn without_addresses_the_maps_tell_where_they_can() {
        let mut blocks = parse(TABLE_7_2).unwrap();
        assert!(blocks.iter().all(|block| block.address.is_none()));
        let mapping = |start: u64, length: u64| Mapping {
            addresses: start..start + length,
            writable: true,
            shared: false,
            offset: 0,
            file: None,
            name: String::new(),
        };
        let maps = [mapping(0x10000, 0x20000), mapping(0x40000, 0x20000), mapping(0x100_0000, 0x100_0000)];
        place(&mut blocks, &[("pc.ram".into(), 0x7000_0000)], &maps);
        // Two blocks of one length cannot be told apart.
        let addresses: Vec<_> = blocks.iter().map(|block| block.address).collect();
        assert_eq!(addresses, [Some(0x7000_0000), Some(0x100_0000), None, None]);
    }

    #[test]
    fn garbage_is_no_table() {
        for text in ["", "x\ny", "Total HVA\n name 0x1 0x2", "Total HVA\n n 4 KiB  0x1 0x2 0x3"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn reads_an_address_and_a_physical_address() {
        let text = "Host virtual address for 0x0 (pc.ram) is 0x7fceb3e00000\n";
        assert_eq!(parse_gpa2hva(text), Some(("pc.ram".into(), 0x7fce_b3e0_0000)));
        assert_eq!(parse_gpa2hva("Memory at address 0xfffff is not RAM"), None);
        let tree = "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n  00-07 (prio 0, i/o): pc.ram\n\n\
                    FlatView #3\n AS \"memory\", root: system\n Root memory region: system\n\
                    \x20 0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM\n\
                    \x20 00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\n\
                    \x20 00000000000c0000-00000000000cafff (prio 0, rom): x @00000000000c0000\n";
        assert_eq!(physical_address(tree, "pc.ram"), Some(0));
        assert_eq!(physical_address(tree, "vga.vram"), Some(0xfd00_0000));
        assert_eq!(physical_address(tree, "x"), None);
    }
}
