"""Opens histories with DuckDB, by the documented schema alone, and compares with what migcast says of them.

check.py MIGCAST DOCUMENT HISTORY…

Runs the Python of DOCUMENT's section "Opening it with something else" on each history, then counts for itself. Exits
with 1 at the first difference, told in one line.
"""

import contextlib
import io
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import duckdb

PLACES_MAX = 100  # so many runs of windows are counted one by one


def fail(line):
    sys.exit(f"duckdb: {line}")


def expect(history, what, found, said):
    """What DuckDB counts must be what migcast says, but for rounding."""
    if not math.isclose(found, said, rel_tol=1e-9, abs_tol=1e-9):
        fail(f"{history}: {what} is {found} by DuckDB, {said} by migcast")


def migcast(program, *arguments):
    return subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def documented(document):
    """The Python of the section on other readers."""
    text = pathlib.Path(document).read_text(encoding="utf-8")
    section = text.split("\n## Opening it with something else\n")
    blocks = re.findall(r"```python\n(.*?)```", section[1], re.DOTALL) if len(section) == 2 else []
    if not blocks:
        fail(f"{document}: no Python in a section `Opening it with something else`")
    return blocks[0]


def check_tables(history, info):
    duckdb.sql(
        f"""CREATE OR REPLACE TEMP VIEW windows AS SELECT start, "end", state, written, zero, cost_us,
                   epoch_ns("end") - epoch_ns(start) AS ns FROM '{history}/windows/*.parquet' ORDER BY start"""
    )
    weight = info["memory_bytes"] / info["page_size_bytes"] / info["sample"]["tracked_pages"]
    recorded = duckdb.sql("SELECT count(*), sum(written), sum(ns) FROM windows WHERE state = 'recorded'").fetchall()[0]
    count, written, ns = recorded
    said = info["recorded"]
    expect(history, "the number of recorded windows", count, said["recorded"]["windows"])
    expect(history, "the recorded time", ns / 1e9, said["recorded"]["seconds"])
    rate = written * weight / (ns / 1e9)
    expect(history, "the mean dirty rate", rate, said["dirty_rate"]["mean_pages_per_second"])
    cost = duckdb.sql("SELECT sum(cost_us) / (sum(ns) / 1000) FROM windows").fetchall()[0][0]
    expect(history, "the recorder's share of a core", cost, said["recorder_cost"]["core_share"])
    zero = duckdb.sql("SELECT last(zero ORDER BY start) FROM windows").fetchall()[0][0]
    expect(history, "the number of zero pages at the end", zero * weight, said["zero_pages_end"])
    pages = duckdb.sql(f"SELECT count(*) FROM '{history}/pages/*.parquet'").fetchall()[0][0]
    expect(history, "the number of events", pages, written)
    events = duckdb.sql(f"SELECT sum(events) FROM '{history}/wws/*.parquet'").fetchall()[0][0]
    expect(history, "the number of events in the WWS index", events, written)
    first = duckdb.sql(f"SELECT sum(events) FROM '{history}/wws/*.parquet' WHERE bucket = 0").fetchall()[0][0]
    distinct = duckdb.sql(f"SELECT count(DISTINCT page) FROM '{history}/pages/*.parquet'").fetchall()[0][0]
    expect(history, "the number of first writes", first, distinct)
    check_write_set(history, said, count, weight)


def check_write_set(history, said, count, weight):
    """Distinct pages per minute (or the longest span migcast states): the mean over all runs of recorded windows."""
    longest = said["wws"][-1]
    length = longest["windows"]
    places = count - length + 1
    if places > PLACES_MAX:
        fail(f"{history}: {places} runs of windows to count, allowed: up to {PLACES_MAX}; take a shorter history")
    duckdb.sql(
        f"""CREATE OR REPLACE TEMP TABLE events AS
            SELECT page, place FROM '{history}/pages/*.parquet' JOIN (
              SELECT "window", row_number() OVER (ORDER BY "window") AS place FROM (
                SELECT state, row_number() OVER (ORDER BY start) - 1 AS "window" FROM '{history}/windows/*.parquet'
              ) WHERE state = 'recorded') USING ("window")"""
    )
    query = "SELECT count(DISTINCT page) FROM events WHERE place > ? AND place <= ?"
    sets = [duckdb.execute(query, [place, place + length]).fetchall()[0][0] for place in range(places)]
    span = longest["span_seconds"]
    expect(history, f"the number of distinct pages in {span} s", sum(sets) / places * weight, longest["pages"])


def check_exports(program, history, folder):
    """Each table says the same as Parquet and as CSV."""
    for table in ["windows", "pages", "wws"]:
        sums = []
        for form in ["csv", "parquet"]:
            out = folder / f"{table}.{form}"
            migcast(program, "history", "export", history, "--table", table, "--out", str(out))
            # Plain text, so that DuckDB's guess at a type does not cut nanoseconds off.
            source = f"read_csv('{out}', all_varchar = true)" if form == "csv" else f"'{out}'"
            columns = [row[0] for row in duckdb.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()]
            time = lambda name: name in ("start", "end")
            values = [f'epoch_ns("{name}"::TIMESTAMP_NS)' if time(name) else f'"{name}"' for name in columns]
            row = " || ',' || ".join(f"({value})::VARCHAR" for value in values)
            sums.append((columns, duckdb.sql(f"SELECT count(*), sum(hash({row})) FROM {source}").fetchall()))
        if sums[0] != sums[1]:
            fail(f"{history}: the export of {table} is {sums[0]} as CSV, {sums[1]} as Parquet")


def main():
    program, document, *histories = sys.argv[1:]
    code = documented(document)
    for history in histories:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code.replace("DIR", history), {})  # as a reader of the document would
        if "pages_per_second" not in printed.getvalue():
            fail(f"{document}: its example prints no pages_per_second for {history}")
        check_tables(history, json.loads(migcast(program, "history", "info", "--json", history)))
        with tempfile.TemporaryDirectory() as folder:
            check_exports(program, history, pathlib.Path(folder))
        print(f"duckdb {duckdb.__version__}: {history}: as migcast says")


main()
