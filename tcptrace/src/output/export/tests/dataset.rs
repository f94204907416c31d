//! The directories and files of a data set, and when they appear.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;

use super::*;

/// A directory of a test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// Every file below it, hidden ones too.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&self.0).expect("below").to_str().expect("UTF-8").to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const DAY: u64 = 86_400 * 1_000_000_000;

fn closed_at(boot_ns: u64) -> Connection {
    Connection { boot_ns, opened_ns: None, ..samples::connection() }
}

/// 2025-01-02T03:04:05Z at boot.
fn export(to: &Path, rows: &[Connection], origins: &[Origin], replace: bool) -> Result<Exported> {
    let mut dataset = Dataset::<Connection>::new(to, replace)?;
    for (row, origin) in rows.iter().zip(origins.iter().cycle()) {
        dataset.row(&Row::Connection(row.clone()), origin)?;
    }
    dataset.finish(&Summary::default())
}

#[test]
fn a_data_set_has_a_file_for_each_day_and_host() {
    let scratch = Scratch::new("days");
    let other = Origin { number: 1, host: "a/b=c".into(), ..origin() };
    let rows = [closed_at(1), closed_at(2), closed_at(DAY), closed_at(DAY + 1), closed_at(DAY + 2)];
    let exported = export(&scratch.0, &rows, &[origin(), other], false).expect("exported");
    assert_eq!((exported.rows, exported.files), (5, 4));
    let expected = [
        "kind=connections/date=2025-01-02/host=a%2Fb%3Dc/part-6ad8fcbd-2-a1b2.parquet",
        "kind=connections/date=2025-01-02/host=web-1/part-6ad8fcbd-1-a1b2.parquet",
        "kind=connections/date=2025-01-03/host=a%2Fb%3Dc/part-6ad8fcbd-86400000000001-a1b2.parquet",
        "kind=connections/date=2025-01-03/host=web-1/part-6ad8fcbd-86400000000000-a1b2.parquet",
    ];
    assert_eq!(scratch.files(), expected);
    let file = scratch.0.join(expected[3]);
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let batches = table::read(fs::read(file).expect("a file").into());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[test]
fn a_second_trace_adds_and_the_same_one_does_not() {
    let scratch = Scratch::new("second");
    let first = [closed_at(1), closed_at(DAY)];
    export(&scratch.0, &first, &[origin()], false).expect("exported");
    let error = export(&scratch.0, &first, &[origin()], false).expect_err("it is there");
    assert!(format!("{error:#}").contains("--force"), "{error:#}");
    assert_eq!(scratch.files().len(), 2);
    // The first file would be new, the second is not: neither is written.
    export(&scratch.0, &[closed_at(0), closed_at(DAY)], &[origin()], false).expect_err("it is there");
    assert_eq!(scratch.files().len(), 2, "{:?}", scratch.files());
    let before = fs::metadata(scratch.0.join(&scratch.files()[0])).expect("a file");
    export(&scratch.0, &first, &[origin()], true).expect("replaced");
    let after = fs::metadata(scratch.0.join(&scratch.files()[0])).expect("a file");
    assert_ne!(before.ino(), after.ino());
    export(&scratch.0, &[closed_at(2), closed_at(3)], &[origin()], false).expect("added");
    assert_eq!(scratch.files().len(), 3, "{:?}", scratch.files());
}

#[test]
fn what_is_not_finished_is_not_there() {
    let scratch = Scratch::new("unfinished");
    let mut dataset = Dataset::<Connection>::new(&scratch.0, false).expect("a folder");
    dataset.push(&closed_at(1), &origin()).expect("a row");
    dataset.push(&closed_at(DAY), &origin()).expect("a row");
    let files = scratch.files();
    let hidden =
        |file: &String| file.rsplit('/').next().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
    assert!(files.len() == 2 && files.iter().all(hidden), "{files:?}");
    drop(dataset);
    assert_eq!(scratch.files(), [""; 0]);
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new("links");
    let (elsewhere, data) = (scratch.0.join("elsewhere"), scratch.0.join("data"));
    fs::create_dir(&elsewhere).expect("a folder");
    symlink(&elsewhere, &data).expect("a link");
    export(&data, &[closed_at(1)], &[origin()], true).expect_err("a link");
    export(&data.join(""), &[closed_at(1)], &[origin()], true).expect_err("a link, with a slash");
    fs::remove_file(&data).expect("removed");
    fs::create_dir_all(data.join("kind=connections")).expect("folders");
    symlink(&elsewhere, data.join("kind=connections/date=2025-01-02")).expect("a link");
    export(&data, &[closed_at(1)], &[origin()], true).expect_err("a link below");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 0);
}

#[test]
fn a_file_is_replaced_only_when_told_to() {
    use std::io::Write;
    let scratch = Scratch::new("file");
    let path = scratch.0.join("trace.json");
    let write = |text: &str, replace| -> Result<()> {
        let (draft, mut file) = Draft::begin_at(&path, replace)?;
        file.write_all(text.as_bytes())?;
        draft.publish(replace)
    };
    write("one", false).expect("written");
    write("two", false).expect_err("it exists");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "one");
    write("three", true).expect("replaced");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "three");
    // Another program creates one meanwhile.
    fs::remove_file(&path).expect("removed");
    let (draft, _) = Draft::begin_at(&path, false).expect("begun");
    fs::write(&path, "theirs").expect("written");
    draft.publish(false).expect_err("it exists");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "theirs");
    // The target of a link is left alone.
    let target = scratch.0.join("target");
    fs::write(&target, "target").expect("written");
    fs::remove_file(&path).expect("removed");
    symlink(&target, &path).expect("a link");
    write("four", false).expect_err("it exists");
    write("four", true).expect("replaced");
    assert_eq!([&target, &path].map(|path| fs::read_to_string(path).expect("a file")), ["target", "four"]);
    assert_eq!(scratch.files(), ["target", "trace.json"]);
}
