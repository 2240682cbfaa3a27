//! `stamp`: copies lines from standard input to standard output, each with the time at which it came before it, in seconds
//! since 1970 with microseconds.

use std::io::{self, BufRead, Write};
use std::time::SystemTime;

fn main() -> io::Result<()> {
    let (input, mut output) = (io::stdin().lock(), io::stdout().lock());
    for line in input.split(b'\n') {
        let line = line?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        write!(output, "{}.{:06} ", now.as_secs(), now.subsec_micros())?;
        output.write_all(&line)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}
