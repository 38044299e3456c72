//! What goes in comes out, byte for byte.

use tempfile::tempdir;

use crate::process::{Appender, append, cat, expect_code, run, run_with_input, stat, text};

#[test]
fn lines_come_out_as_they_went_in() {
    let mut long = vec![b'x'; 5 << 20];
    long.extend(b"\nshort\n");
    let inputs: [&[u8]; 7] = [
        b"",
        b"\n",
        b"one\n\n\n\nfive\n",
        b"carriage return\r\n\ttab \x00 zero\n",
        b"\xff\xfe not \xc3\x28 UTF-8\n",
        "größer ▏ Ærø\n".as_bytes(),
        &long,
    ];
    for input in inputs {
        let dir = tempdir().unwrap();
        append(dir.path(), input);
        assert!(
            cat(dir.path()) == input,
            "{:?}",
            text(&input[..input.len().min(80)])
        );
    }
}

#[test]
fn any_bytes_that_end_in_a_newline_come_out_as_they_went_in() {
    let dir = tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut input: Vec<u8> = (0..1_000_000)
        .map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 56) as u8
        })
        .collect();
    input.push(b'\n');
    let lines = input.iter().filter(|byte| **byte == b'\n').count();

    append(dir.path(), &input);

    assert!(cat(dir.path()) == input);
    assert_eq!(stat(dir.path())["records"], lines);
}

#[test]
fn a_last_line_without_a_newline_counts_as_well() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"one\ntwo");
    append(dir.path(), b"three");
    assert_eq!(text(&cat(dir.path())), "one\ntwo\nthree\n");
}

#[test]
fn raw_input_is_one_record_and_comes_out_raw() {
    let dir = tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let photo: Vec<u8> = (0..=255).cycle().take(700_001).collect();

    expect_code(&run_with_input(["append", "--raw", dir], &photo), 0);
    expect_code(&run_with_input(["append", "--raw", dir], b""), 0);
    expect_code(&run_with_input(["append", "--raw", dir], b"\n"), 0);

    assert!(run(["cat", "--raw", "--to", "1", dir]).stdout == photo);
    assert_eq!(run(["cat", "--raw", "--from", "1", dir]).stdout, b"\n");
    assert_eq!(run(["cat", "--from", "1", dir]).stdout, b"\n\n\n");
}

#[test]
fn a_line_is_stored_while_its_pipe_stays_open() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &[]);

    for count in 1..=20 {
        assert!(appender.feed(format!("line {count}\n").as_bytes()));
        assert_eq!(appender.acknowledged(), Some(count));
        assert_eq!(stat(dir.path())["records"], count);
    }
    assert!(appender.feed(b"half a "));
    assert!(appender.feed(b"line\n"));
    assert_eq!(appender.acknowledged(), Some(21));

    let (status, said) = appender.finish();
    assert!(status.success());
    assert!(
        said.starts_with("Stored 21 records, offsets 0 to 20: "),
        "{said}"
    );
    assert!(cat(dir.path()).ends_with(b"\nline 20\nhalf a line\n"));
}

#[test]
fn a_line_longer_than_a_segment_fails_and_keeps_the_ones_before() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for line_bytes in [17 << 10, 900 << 10] {
        let input = [
            b"one\ntwo\n",
            vec![b'x'; line_bytes].as_slice(),
            b"\nthree\n",
        ]
        .concat();

        let output = run_with_input(["append", "--segment-bytes-max", "16K", path], &input);

        expect_code(&output, 1);
        let said = text(&output.stderr);
        assert!(said.contains("record 3 of the input"), "{said}");
        assert!(
            said.contains("segment-bytes-max") || said.contains("segment_bytes_max"),
            "{said}"
        );
    }
    assert_eq!(text(&cat(dir.path())), "one\ntwo\none\ntwo\n");
}

#[test]
fn a_log_of_many_small_segments_holds_every_line() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let input: String = (0..50_000).map(|number| format!("{number}\n")).collect();

    let output = run_with_input(
        ["append", "--segment-bytes-max", "16K", "--durable", path],
        input.as_bytes(),
    );

    expect_code(&output, 0);
    assert!(stat(dir.path())["segments"].as_u64().unwrap() > 50);
    assert!(cat(dir.path()) == input.as_bytes());
    let last = run(["cat", "--from", "49999", path]);
    assert_eq!(text(&last.stdout), "49999\n");
}
