//! The figures: each one call of `migcast sweep`.

use anyhow::Result;

use super::document::Block;
use super::program::{PLATFORM, Program, text};

/// A figure: the file below docs/paper, without its ending, and the words that ask for it. `FIRST-HALF` and `SECOND-HALF`
/// stand for histories.
struct Figure {
    name: &'static str,
    words: &'static str,
}

const FIGURES: [Figure; 6] = [
    Figure {
        name: "uniform",
        words: "--memory 1GiB --link 935Mbit/s --vary dirty-rate=0:60000pages/s:500 --vary wws=128MiB,256MiB,512MiB,1GiB",
    },
    Figure {
        name: "sequential",
        words: "--memory 1GiB --writes sequential --link 935Mbit/s --vary dirty-rate=0:60000pages/s:500 \
                --vary wws=128MiB,256MiB,512MiB,1GiB",
    },
    Figure {
        name: "skipping",
        words: "--memory 1GiB --link 935Mbit/s --vary dirty-rate=1000:1000000pages/s:x1.2589254117 \
                --vary wws=128MiB,256MiB,512MiB,1GiB --log-x",
    },
    Figure {
        name: "links",
        words: "--memory 1GiB --vary dirty-rate=100:1000000pages/s:x1.2589254117 \
                --vary link=94.2Mbit/s,935Mbit/s,7.13Gbit/s --log-x --log-y",
    },
    Figure { name: "hist", words: "FIRST-HALF --link 935Mbit/s --vary start=0:159s:1s --vary model=hist,avg" },
    Figure { name: "actual", words: "SECOND-HALF --link 935Mbit/s --vary start=0:159s:1s" },
];

impl Figure {
    fn path(&self) -> String {
        format!("docs/paper/{}.svg", self.name)
    }

    fn words(&self) -> String {
        let (words, path) = (self.words, self.path());
        format!("sweep {words} --algorithm xen-classic --platform {PLATFORM} --plot {path}")
    }
}

/// The command of each figure, as a block of the document.
pub(super) fn commands() -> Vec<Block> {
    FIGURES.iter().map(|figure| (figure.name, format!("```console\n$ migcast {}\n```", figure.words()))).collect()
}

/// Draws them all.
pub(super) fn draw(program: &Program) -> Result<()> {
    let halves = [program.first_half(), program.second_half()];
    for figure in &FIGURES {
        let words = figure.words();
        let words: Result<Vec<&str>> = words
            .split_whitespace()
            .map(|word| match word {
                "FIRST-HALF" => text(&halves[0]),
                "SECOND-HALF" => text(&halves[1]),
                _ => Ok(word),
            })
            .collect();
        program.print(&words?)?;
        println!("    {}", figure.path());
    }
    Ok(())
}
