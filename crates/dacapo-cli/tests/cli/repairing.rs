//! `dacapo repair`: what is sound comes through, what is lost is said, and nothing else is touched.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::damage::{flip_byte_of, lines, log_of_1000};
use crate::process::{append, cat, expect_code, run, stat, text};

/// A log of 1000 records of which 17 to 20 and 500 are damaged, and a place for the repaired one.
fn damaged_log() -> (TempDir, TempDir, String) {
    let (log, above) = (log_of_1000(), tempdir().unwrap());
    for number in [17, 18, 19, 20, 500] {
        flip_byte_of(log.path(), &format!("record number {number}"));
    }
    let repaired = above.path().join("repaired").to_str().unwrap().to_owned();
    (log, above, repaired)
}

#[test]
fn a_damaged_log_is_repaired_and_goes_on() {
    let (log, _above, repaired) = damaged_log();
    let damaged = log.path().to_str().unwrap();

    let output = run(["verify", damaged]);
    expect_code(&output, 1);
    let advice = format!("repair it with: dacapo repair {damaged} NEW_DIR\n");
    assert!(text(&output.stdout).contains(&advice), "{output:?}");

    let output = run(["repair", damaged, &repaired]);
    expect_code(&output, 1);
    let said = text(&output.stdout);
    assert!(said.contains("damaged: "), "{said}");
    assert!(said.contains("lost: 4 records, 17 to 20\n"), "{said}");
    assert!(said.contains("lost: record 500\n"), "{said}");
    assert!(said.contains("repaired: 995 records in "), "{said}");

    let output = run(["verify", &repaired]);
    expect_code(&output, 0);
    let said = text(&output.stdout);
    assert!(said.starts_with("sound: 995 records in "), "{said}");
    let gaps = "5 records were lost before a repair: 17 to 20, 500\n";
    assert!(said.contains(gaps), "{said}");
    let output = run(["stat", &repaired]);
    assert!(
        text(&output.stdout).contains(&format!("lost      {gaps}")),
        "{output:?}"
    );
    let stat = stat(Path::new(&repaired));
    assert_eq!(stat["records"], 995);
    assert_eq!(stat["next_offset"], 1000);
    assert_eq!(stat["clean"], true);
    assert_eq!(
        stat["gaps"],
        json!([{"from": 17, "to": 21}, {"from": 500, "to": 501}])
    );

    append(Path::new(&repaired), b"goes on\n");
    let sound = lines(0..17) + &lines(21..500) + &lines(501..1000) + "goes on\n";
    for args in [&["cat"][..], &["tail", "-n", "996"]] {
        let output = run(args.iter().copied().chain([repaired.as_str()]));
        expect_code(&output, 0);
        assert_eq!(text(&output.stdout), sound);
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 2, "each gap is told of once: {said}");
        assert!(
            said.starts_with("dacapo: records 17 to 20 were lost "),
            "{said}"
        );
    }
    let output = run(["cat", "--from", "19", "--to", "23", &repaired]);
    assert_eq!(text(&output.stdout), lines(21..23));
}

#[test]
fn what_was_found_is_an_object_for_programs() {
    let (log, _above, repaired) = damaged_log();

    let output = run(["repair", "--json", log.path().to_str().unwrap(), &repaired]);

    expect_code(&output, 1);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["complete"], false);
    assert_eq!(json["records"], 995);
    assert_eq!(json["next_offset"], 1000);
    assert_eq!(json["torn_bytes"], 0);
    assert_eq!(
        json["lost"],
        json!([{"from": 17, "to": 21}, {"from": 500, "to": 501}])
    );
    assert_eq!(json["gaps"], json!([]));
    assert_eq!(json["damages"][0]["offset"], 17);
    assert_eq!(
        text(&output.stderr),
        "",
        "no progress bar without a terminal"
    );
}

#[test]
fn a_log_that_lost_nothing_ends_with_0() {
    let (log, above) = (log_of_1000(), tempdir().unwrap());
    fs::remove_file(log.path().join("meta")).unwrap();
    let repaired = above.path().join("repaired");

    let output = run([
        "repair",
        log.path().to_str().unwrap(),
        repaired.to_str().unwrap(),
    ]);

    expect_code(&output, 0);
    let said = text(&output.stdout);
    assert!(
        said.contains("repaired, nothing is lost: 1,000 records"),
        "{said}"
    );
    assert_eq!(text(&cat(&repaired)), lines(0..1000));
}

#[test]
fn what_cannot_be_repaired_ends_with_2_and_makes_nothing() {
    let (log, above) = (log_of_1000(), tempdir().unwrap());
    let taken = above.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "mine").unwrap();
    let new = above.path().join("new");
    let missing = above.path().join("missing");
    for (src, dst) in [
        (log.path(), taken.as_path()),
        (&taken, &new),
        (&missing, &new),
        (log.path(), log.path()),
        (log.path(), &log.path().join("inside")),
    ] {
        let output = run(["repair", src.to_str().unwrap(), dst.to_str().unwrap()]);
        expect_code(&output, 2);
        assert!(text(&output.stderr).starts_with("dacapo: "), "{output:?}");
        assert_eq!(text(&output.stdout), "");
    }
    assert!(!new.exists());
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
    assert_eq!(text(&cat(log.path())), lines(0..1000));
}
