//! The document: text with blocks that a program printed.

use anyhow::{Context, Result, ensure};

/// A block's name and what is printed into it.
pub(super) type Block = (&'static str, String);

const BEGIN: &str = "<!-- printed: ";
const END: &str = "<!-- end -->";

/// The document with these blocks, each of which must stand in it once, and no other.
pub(super) fn with_blocks(text: &str, blocks: &[Block]) -> Result<String> {
    let mut printed = text.to_owned();
    for (name, content) in blocks {
        let mark = format!("{BEGIN}{name} -->\n");
        ensure!(printed.matches(&mark).count() == 1, "the document has not one block `{name}`");
        let at = printed.find(&mark).context("it was just counted")? + mark.len();
        let end = printed[at..].find(END).with_context(|| format!("block `{name}` has no end"))? + at;
        printed.replace_range(at..end, &format!("\n{}\n\n", content.trim_end()));
    }
    ensure!(printed.matches(BEGIN).count() == blocks.len(), "the document has blocks that nothing prints");
    Ok(printed)
}

/// The first line in which two texts differ, as each has it.
pub(super) fn first_difference(old: &str, new: &str) -> Option<String> {
    let (mut old, mut new) = (old.lines(), new.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some(format!("- {}\n+ {}", a.unwrap_or("(its end)"), b.unwrap_or("(its end)"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "before\n<!-- printed: a -->\nold\n<!-- end -->\nafter\n";

    #[test]
    fn a_block_is_replaced_and_nothing_else() {
        let printed = with_blocks(TEXT, &[("a", "new\n".to_owned())]).unwrap();
        assert_eq!(printed, "before\n<!-- printed: a -->\n\nnew\n\n<!-- end -->\nafter\n");
        assert_eq!(with_blocks(&printed, &[("a", "new".to_owned())]).unwrap(), printed, "twice is once");
    }

    #[test]
    fn a_block_that_is_missing_or_that_nothing_prints_is_refused() {
        assert!(with_blocks(TEXT, &[("b", String::new())]).is_err());
        assert!(with_blocks(TEXT, &[]).is_err());
        assert!(with_blocks("<!-- printed: a -->\n", &[("a", String::new())]).is_err());
    }

    #[test]
    fn a_difference_is_shown_as_both_have_it() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n").unwrap(), "- b\n+ c");
        assert_eq!(first_difference("a\n", "a\nb\n").unwrap(), "- (its end)\n+ b");
        assert_eq!(first_difference("a\n", "a\n"), None);
    }
}
